"""``python -m tests.conformance``: the suite's scenarios for servers with tools, against a plugin in a real container.

The suite knows neither tokens nor names with a namespace. What stands between it and the host adds the one and takes
the other away; every other byte is as the host sent it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conformance.suite_server import TOOLS
from tests.fakes.mcp_host import ROOT, mcp_host
from tests.fakes.packages import make_package
from wirthforge_sdk.contracts.manifest import Annotations, Function

SUITE = ("@modelcontextprotocol/conformance@0.1.16", "node@22.23.3")
"""What npm brings: the suite, and the Node that it needs."""
PLUGIN = "demo/suite"
PREFIX = b"demo__suite__"
APPLIES = (
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-with-progress",
    "tools-call-error",
    "json-schema-2020-12",
    "server-sse-polling",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)
DOES_NOT_APPLY = {
    "logging-set-level": "a plugin's log goes to the operator, not to callers",
    "tools-call-with-logging": "a plugin's log goes to the operator, not to callers",
    "tools-call-sampling": "a plugin asks the council, never the client's model",
    "tools-call-elicitation": "a plugin does not ask the client's user; the host does, for a yes to a call",
    "elicitation-sep1034-defaults": "as above",
    "elicitation-sep1330-enums": "as above",
    "completion-complete": "there are tools only",
    "resources-*": "there are tools only",
    "prompts-*": "there are tools only",
}


class Between:
    """Adds the token, and takes the namespace off names."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.token = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def asked() -> Any:
            message = await receive()
            body = message.get("body", b"")
            for name in (b"test_", b"json_schema_"):
                body = body.replace(b'"name":"' + name, b'"name":"' + PREFIX + name)
            return {**message, "body": body} if body else message

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                kept = [each for each in message["headers"] if each[0] != b"content-length"]
                message = {**message, "headers": kept}
            elif message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").replace(PREFIX, b"")}
            await send(message)

        headers = [each for each in scope["headers"] if each[0] != b"content-length"]
        token = [(b"authorization", f"Bearer {self.token}".encode())]
        await self.app({**scope, "headers": headers + token}, asked, told)


def package() -> bytes:
    """The suite's tools as a plugin."""
    hints = Annotations(read_only=True, destructive=False, open_world=False)
    functions = [
        Function(
            name=tool["name"],
            description=tool["description"],
            input_schema=tool["inputSchema"],
            annotations=hints,
        )
        for tool in TOOLS
    ]
    source = Path(__file__).with_name("suite_server.py").read_text(encoding="utf-8")
    return make_package(PLUGIN, source=source, functions=functions, runtime='type = "mcp"\nentry = "plugin"')


def installed() -> Path:
    """Where the suite's programs are; npm brings them when they are not there."""
    place = ROOT / ".cache" / "mcp-conformance"
    made = place / "-".join(each.rpartition("@")[2] for each in SUITE)
    if not made.exists():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", place, *SUITE],
            check=True,
            timeout=600,
        )
        made.touch()
    return place / "node_modules" / ".bin"


async def run(scenario: str, url: str, programs: Path, scratch: Path) -> dict[str, Any]:
    """What the suite says of one scenario: checks by status."""
    process = await asyncio.create_subprocess_exec(
        programs / "node",
        (programs / "conformance").resolve(),
        *("server", "--url", url, "--scenario", scenario, "-o", scratch / scenario),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    [found] = (scratch / scenario).rglob("checks.json")
    checks = [each for each in json.loads(found.read_text()) if each["status"] != "INFO"]
    wrong = [f"{each['id']}: {each.get('errorMessage')}" for each in checks if each["status"] != "SUCCESS"]
    return {
        "scenario": scenario,
        "passed": len(checks) - len(wrong),
        "wrong": wrong,
        "code": process.returncode,
        "said": said.decode(errors="replace") if process.returncode else "",
    }


async def main() -> int:
    """Runs them all, prints a line each, and tells whether all passed."""
    programs = await asyncio.to_thread(installed)
    built = await asyncio.to_thread(package)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as scratch:  # sockets need a short path
        async with mcp_host(Path(scratch) / "h", built, real=True, wrap=Between) as served:
            await served.host.install(PLUGIN)
            served.app.token = await served.token("call:demo/suite", label="conformance")
            url = served.url.replace("127.0.0.1", "localhost")
            for scenario in APPLIES:
                began = time.perf_counter()
                told = await run(scenario, url, programs, Path(scratch))
                is_fine = not told["wrong"] and not told["code"]
                failed += not is_fine
                print(f"{'ok  ' if is_fine else 'FAIL'} {scenario}: {told['passed']} checks, "
                      f"{time.perf_counter() - began:.1f} s", *told["wrong"], sep="\n     ")  # fmt: skip
                if told["said"]:
                    print(told["said"])
    for scenario, why in DOES_NOT_APPLY.items():
        print(f"     {scenario} does not apply: {why}")
    print(f"{len(APPLIES) - failed} of {len(APPLIES)} scenarios passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
