"""The tools that the suite calls, as an MCP server on standard input and output; it is a plugin of the host."""

import json
import sys

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
NOTHING = {"type": "object", "properties": {}}
ADDRESS = {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"}}}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": ADDRESS},
    "properties": {"name": {"type": "string"}, "address": {"$ref": "#/$defs/address"}},
    "additionalProperties": False,
}


def text(said):
    return {"type": "text", "text": said}


def resource(uri, kind, said):
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": said}}


IMAGE = {"type": "image", "data": DOT, "mimeType": "image/png"}
ANSWERS = {
    "test_simple_text": [text("This is a simple text response for testing.")],
    "test_image_content": [IMAGE],
    "test_audio_content": [{"type": "audio", "data": SILENCE, "mimeType": "audio/wav"}],
    "test_embedded_resource": [
        resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        text("Multiple content types test:"),
        IMAGE,
        resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
    "test_error_handling": [text("This tool intentionally returns an error for testing")],
    "test_tool_with_progress": [text("Done.")],
    "test_reconnection": [text("Reconnected, if that was needed.")],
    "json_schema_2020_12_tool": [text("Here.")],
}
TOOLS = [
    {
        "name": name,
        "description": f"What the suite calls {name}.",
        "inputSchema": SCHEMA if name.startswith("json") else NOTHING,
        "annotations": {"readOnlyHint": True, "destructiveHint": False, "openWorldHint": False},
    }
    for name in ANSWERS
]


def say(message):
    """Writes a message."""
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(method, params):
    """The result of a request, or None for a method that is not here."""
    if method == "initialize":
        who = {"name": "suite", "version": "1.0.0"}
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": who,
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        name = params["name"]
        token = params.get("_meta", {}).get("progressToken")
        if name == "test_tool_with_progress" and token is not None:
            for reached in (0, 50, 100):
                say(
                    {
                        "method": "notifications/progress",
                        "params": {"progressToken": token, "progress": reached, "total": 100},
                    }
                )
        return {"content": ANSWERS[name], "isError": name == "test_error_handling"}
    return {} if method == "ping" else None


if __name__ == "__main__":
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            result = answer(message["method"], message.get("params", {}))
            told = (
                {"result": result} if result is not None else {"error": {"code": -32601, "message": "none"}}
            )
            say({"id": message["id"], **told})
