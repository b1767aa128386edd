// A plugin in JavaScript: counters that outlive it. Written from docs/bridge.md, with nothing but Node.js.
"use strict";

const MODERN = "2026-07-28";
const GREETED = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const PROTOCOL = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";
const ABOUT = { name: "demo/tally", version: "1.0.0" };
const MAX_LINE = 4 * 1024 * 1024, MAX_NESTING = 64, MAX_OPEN = 256, LONGEST_TIMER_MS = 2 ** 31 - 1, WRITE_MS = 10_000;
const NUMBERS = { INVALID_PARAMETERS: -32602, FUNCTION_NOT_FOUND: -32601, INTERNAL_ERROR: -32603 };

class Refusal extends Error { // becomes the JSON-RPC error it holds
  constructor(error) { super(error.message); this.error = error; }
}
const plain = (code, message, data) => new Refusal({ code, message, data });
const refusal = (code, message, more) => plain(NUMBERS[code] ?? -32050, message, { code, ...more });

// ---- what it offers

const NAME = { type: "string", pattern: "^[a-z0-9-]{1,64}$" };
const WHOLE = { type: "integer", minimum: -(10 ** 9), maximum: 10 ** 9 };
const COUNTED = { type: "object", properties: { name: NAME, count: { type: "integer" } }, required: ["name", "count"] };

function tool(name, description, properties, required, hints) {
  const inputSchema = { type: "object", properties, required, additionalProperties: false };
  const annotations = { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false, ...hints };
  return { name, description, inputSchema, outputSchema: COUNTED, annotations };
}
const reads = { readOnlyHint: true, idempotentHint: true };
const TOOLS = new Map([
  tool("count", "Adds to a counter, 1 unless told otherwise.", { name: NAME, by: WHOLE }, ["name"]),
  tool("read", "What a counter stands at.", { name: NAME }, ["name"], reads),
  tool("wait_for", "Waits until a counter has reached a value.", { name: NAME, at_least: WHOLE }, ["name", "at_least"], reads),
].map((each) => [each.name, each]));

let turn = Promise.resolve(); // of reading a counter and writing it, one call at a time
const waiters = new Set();

const FUNCTIONS = {
  count({ name, by = 1 }, call) {
    const counted = turn.then(async () => {
      const count = (await stored(name, call)) + by;
      if (!Number.isSafeInteger(count)) throw new RangeError(`${name} cannot count beyond 2^53`);
      await ask("host/storage.set", { key: `count/${name}`, value: count }, call, within(WRITE_MS)); // the next turn reads it
      log("info", "counted", call, { name, by });
      for (const wake of waiters) wake();
      return { name, count };
    });
    turn = counted.catch(() => {});
    return counted;
  },
  async read({ name }, call) {
    return { name, count: await stored(name, call) };
  },
  async wait_for({ name, at_least: least }, call) {
    let wake;
    try {
      for (;;) {
        waiters.delete(wake);
        const changed = new Promise((resolve) => waiters.add((wake = resolve))); // before it looks: no change is missed
        const count = await stored(name, call);
        if (count >= least) return { name, count };
        log("debug", "waiting", call, { name, count });
        await Promise.race([changed, call.over]);
      }
    } finally {
      waiters.delete(wake);
    }
  },
};

async function stored(name, call) {
  const { found, value } = await ask("host/storage.get", { key: `count/${name}` }, call);
  return found ? value : 0;
}

function check(schemas, required, given) {
  if (!isObject(given)) throw refusal("INVALID_PARAMETERS", "arguments: must be an object", { field: "" });
  const wrong = (field, why) => refusal("INVALID_PARAMETERS", `${field}: ${why}`, { field });
  for (const field of required) if (!Object.hasOwn(given, field)) throw wrong(field, "is missing");
  for (const [field, value] of Object.entries(given)) {
    const schema = Object.hasOwn(schemas, field) ? schemas[field] : undefined;
    if (!schema) throw wrong(field.slice(0, 100), "is no parameter");
    if (schema === NAME && !(typeof value === "string" && new RegExp(NAME.pattern).test(value))) throw wrong(field, `must match ${NAME.pattern}`);
    if (schema === WHOLE && !(Number.isInteger(value) && value >= WHOLE.minimum && value <= WHOLE.maximum)) throw wrong(field, "must be a whole number within 10^9");
  }
}

// ---- its calls, and what it asks of its host

const open = new Map(); // the host's calls by id, until their functions end; an id is a number or a string, and 1 is not "1"
const asks = new Map(); // ours: at most one for each open call
let lastAsk = 0;

function start(id, params) {
  const tool = TOOLS.get(params.name);
  if (!tool) throw refusal("FUNCTION_NOT_FOUND", `there is no function ${String(params.name).slice(0, 100)}`);
  if (open.has(id)) throw plain(-32600, "a call with this id is open");
  if (open.size >= MAX_OPEN) throw refusal("RESOURCE_EXHAUSTED", `${MAX_OPEN} calls are open`);
  check(tool.inputSchema.properties, tool.inputSchema.required, params.arguments ?? {});
  const late = () => call.stop(refusal("TIMEOUT", "the call's time is over"));
  const left = params._meta?.["wf/timeout_ms"];
  const call = { id, answered: true };
  call.over = new Promise((_, reject) => {
    call.stop = (why) => reject((call.stopped = why));
  });
  call.over.catch(() => {}); // nobody may be waiting for it just now
  if (left <= 0) late();
  else if (typeof left === "number") call.timer = setTimeout(late, Math.min(left, LONGEST_TIMER_MS));
  open.set(id, call);
  run(call, FUNCTIONS[tool.name], params.arguments ?? {});
}

async function run(call, body, given) {
  let answer;
  try {
    const value = await body(given, call);
    answer = { result: { content: [{ type: "text", text: JSON.stringify(value) }], structuredContent: value, isError: false, resultType: "complete" } };
  } catch (error) {
    if (error instanceof Refusal) answer = { error: error.error };
    else {
      log("error", error.stack, call);
      answer = { result: { content: [{ type: "text", text: `${error.name}: ${error.message}` }], isError: true, resultType: "complete" } };
    }
  }
  clearTimeout(call.timer);
  open.delete(call.id);
  if (call.answered) send({ id: call.id, ...answer });
}

const within = (ms) => new Promise((_, reject) => setTimeout(() => reject(refusal("TIMEOUT", "the host does not answer")), ms).unref());

async function ask(method, params, call, patience = call.over) {
  if (call.stopped) throw call.stopped;
  const id = ++lastAsk;
  const answer = new Promise((resolve, reject) => asks.set(id, { resolve, reject }));
  send({ id, method, params: { ...params, _meta: { "wf/call": call.id } } });
  try {
    return await Promise.race([answer, patience]);
  } finally {
    if (asks.delete(id)) send({ method: "notifications/cancelled", params: { requestId: id } });
  }
}

function answered({ id, result, error }) {
  const asked = asks.get(id); // undefined: nobody waits for it any more
  asks.delete(id);
  if (error) asked?.reject(new Refusal(error));
  else asked?.resolve(result);
}

const log = (level, message, call, fields) => send({ method: "host/log", params: { level, message, fields, _meta: { "wf/call": call.id } } });

// ---- the protocol

let era; // settled by the host's first good request

function settle(method, params) {
  const { [PROTOCOL]: revision, [CAPABILITIES]: capabilities } = params._meta ?? {};
  const unsupported = (requested) => plain(-32022, `this connection serves MCP ${MODERN}`, { supported: [MODERN], requested });
  if (method === "initialize" && era !== MODERN && revision === undefined) era = "greeted";
  if (era === "greeted" && revision !== undefined) throw plain(-32600, "this connection began with initialize: send no envelope");
  if (era === "greeted") return;
  if (method === "initialize") throw unsupported(params.protocolVersion);
  if (revision === undefined || !isObject(capabilities)) throw plain(-32602, `params._meta needs ${PROTOCOL} and ${CAPABILITIES}`);
  if (revision !== MODERN) throw unsupported(revision);
  era = MODERN;
}

function requested(id, method, params) { // gives the result; of a call it comes later
  settle(method, params);
  const capabilities = { tools: { listChanged: false } };
  const fresh = era === MODERN ? { resultType: "complete", ttlMs: 0, cacheScope: "private" } : {};
  if (method === "tools/call") return start(id, params);
  if (method === "tools/list") return { tools: [...TOOLS.values()], ...fresh };
  if (method === "server/discover" && era === MODERN)
    return { supportedVersions: [MODERN], capabilities, ...fresh, _meta: { "io.modelcontextprotocol/serverInfo": ABOUT } };
  if (method === "initialize")
    return { protocolVersion: GREETED.includes(params.protocolVersion) ? params.protocolVersion : GREETED.at(-1), capabilities, serverInfo: ABOUT };
  if (method === "ping" && era !== MODERN) return {};
  throw plain(-32601, `there is no method ${method.slice(0, 100)}`);
}

function cancelled({ requestId }) {
  const call = open.get(requestId);
  if (!call?.answered) return; // over, or told before
  call.answered = false;
  log("debug", "given up", call);
  call.stop(refusal("CANCELLED", "nobody waits for the call"));
}

function received(bytes) {
  let id = null;
  try {
    const message = decoded(bytes);
    if (!isObject(message)) throw plain(-32600, "a message is one JSON object");
    if (isId(message.id)) id = message.id;
    const { jsonrpc, method, params = {} } = message;
    const isAnswer = method === undefined && ("result" in message || "error" in message);
    if (jsonrpc !== "2.0" || (message.id !== undefined && id === null) || !(isAnswer || typeof method === "string"))
      throw plain(-32600, "this is no message of JSON-RPC 2.0");
    if (isAnswer) return answered(message);
    const isGood = isObject(params) && isObject(params._meta ?? {});
    if (id === null) return isGood && method === "notifications/cancelled" ? cancelled(params) : undefined;
    if (!isGood) throw plain(-32602, "params and params._meta must be objects");
    const result = requested(id, method, params);
    if (result) send({ id, result });
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    send({ id, error: error.error });
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isId = (value) => typeof value === "string" || Number.isSafeInteger(value);
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decoded(bytes) {
  let text;
  try {
    text = utf8.decode(bytes);
    if (!isTooDeep(text)) return JSON.parse(text);
  } catch {
    throw plain(-32700, "the line is not JSON");
  }
  throw plain(-32600, `a message has at most ${MAX_NESTING} levels`);
}

function isTooDeep(text) {
  let depth = 0, quoted = false;
  for (let at = 0; at < text.length && depth <= MAX_NESTING; at++) {
    const mark = text[at];
    if (quoted && mark === "\\") at++;
    else if (mark === '"') quoted = !quoted;
    else if (!quoted && (mark === "[" || mark === "{")) depth++;
    else if (!quoted && (mark === "]" || mark === "}")) depth--;
  }
  return depth > MAX_NESTING;
}

function send(message) {
  let line = JSON.stringify({ jsonrpc: "2.0", ...message });
  if (Buffer.byteLength(line) > MAX_LINE)
    line = JSON.stringify({ jsonrpc: "2.0", id: message.id, error: refusal("RESOURCE_EXHAUSTED", "the answer is over 4 MiB").error });
  process.stdout.write(`${line}\n`);
}

let parts = [], size = 0;

function collect(part) {
  parts.push(part);
  size += part.length;
  if (size > MAX_LINE) process.exit(76);
}

process.stdin.on("data", (chunk) => {
  let begin = 0;
  for (let end; (end = chunk.indexOf("\n", begin)) >= 0; begin = end + 1) {
    collect(chunk.subarray(begin, end));
    const line = Buffer.concat(parts);
    (parts = []), (size = 0);
    received(line);
  }
  collect(chunk.subarray(begin));
});
process.stdin.on("end", () => process.exit(0));
