"""A host and a marketplace that answer as they are told, on a loopback port, and remember what was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest_socket

from wirthforge_sdk.contracts.problem import CONTENT_TYPE, problem_of
from wirthforge_sdk.contracts.resources import MIB, TIERS, Tier
from wirthforge_sdk.errors import NotFoundError, WirthForgeError

HOST_TOKEN = "wfh_" + "h" * 43 + "0" * 8
MARKET_TOKEN = "wfm_" + "m" * 43 + "0" * 8
DIGEST = "sha256:" + "d" * 64
KEYID = "sha256:" + "e" * 64
AT = "2030-01-02T03:04:05Z"

ASKED = {
    "need": "storage.read",
    "meaning": "read its own stored values",
    "reason": "it keeps notes",
    "optional": False,
    "standing": "undecided",
}
FUNCTION = {
    "name": "forecast",
    "description": "Tells the weather.\nOf tomorrow.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "output_schema": None,
    "annotations": {"read_only": True, "destructive": False, "idempotent": True, "open_world": False},
    "timeout_s": 30.0,
}
LIMITS = {
    "cpus": 0.5,
    "memory_bytes": 134217728,
    "pids": 64,
    "tmpfs_bytes": 16777216,
    "open_files": 256,
    "storage_bytes": 16777216,
    "io_bytes_per_s": 16777216,
    "io_operations_per_s": 400,
    "calls_per_s": 1000,
}
WAITING = {
    "name": "acme/weather",
    "version": "1.2.0",
    "digest": DIGEST,
    "signer": KEYID,
    "summary": "Weather for cities",
    "state": "awaiting_approval",
    "cause": "storage.read is undecided",
    "changed_at": AT,
    "enabled": True,
    "limits": LIMITS,
    "permissions": [ASKED, ASKED | {"need": "ui.notify", "meaning": "show notifications", "optional": True}],
    "functions": [FUNCTION],
    "instance": None,
    "instances": [],
    "scale": {"least": 1, "most": 1, "now": 1, "reason": ""},
}
INSTANCE = {
    "id": "i1",
    "container": "c" * 64,
    "uid": 61000,
    "started_at": AT,
    "protocol": "2026-07-28",
    "state": "running",
    "calls": 0,
    "repairs": 0,
}
SNAPSHOT = {
    "id": 7,
    "plugin": "acme/weather",
    "digest": DIGEST,
    "by": "upgrade",
    "created_at": AT,
    "entries": 2,
    "size_bytes": 64,
}
UPGRADE: dict[str, Any] = {
    "id": 4,
    "plugin": "acme/weather",
    "before": {"version": "1.0.0", "digest": "sha256:" + "1" * 64},
    "after": {"version": "1.1.0", "digest": "sha256:" + "2" * 64},
    "state": "probation",
    "cause": "its instances passed their self-test",
    "actor": "operator:me",
    "asks": [],
    "snapshot": 3,
    "canary": None,
    "began_at": AT,
    "changed_at": AT,
}
ARM: dict[str, Any] = {"calls": 900, "failures": 9, "refusals": 1, "p50_ms": 1.2, "p95_ms": 3.4}
TRIED = UPGRADE | {
    "state": "canary",
    "snapshot": None,
    "canary": {
        "mode": "shadow",
        "share": 0.1,
        "sticky": False,
        "calls": 1000,
        "for_s": 3600.0,
        "error_margin": 0.02,
        "slowdown": 1.25,
        "agreement": 0.98,
        "evidence": {
            "old": ARM,
            "new": ARM | {"calls": 70, "failures": 0, "p50_ms": None},
            "pairs": 70,
            "agreed": 69,
            "dropped": 5,
            "looked": 62,
            "next_look": 125,
            "told": "that it fails at most 2.0% more often",
            "ends_at": AT,
        },
    },
}
ROTATION: dict[str, Any] = {"done": True, "plugins_left": [], "values_sealed": 3, "broken": {}}
RUNNING = WAITING | {
    "state": "running",
    "cause": "approved",
    "instance": INSTANCE,
    "instances": [INSTANCE],
}
CALLED = {
    "id": "c1",
    "is_error": False,
    "structured": {"sky": "blue"},
    "content": [{"type": "text", "text": "blue"}],
    "duration_ms": 1.5,
    "cached": False,
}
LOG = {
    "id": 7,
    "at": AT,
    "plugin": "acme/weather",
    "instance": "i1",
    "level": "warning",
    "message": "it rains",
    "fields": {"mm": 3},
}
REQUEST = {
    "id": "0a",
    "plugin": "acme/weather",
    "digest": DIGEST,
    "instance": "i",
    "permission": "storage.read",
    "meaning": "read its own stored values",
    "reason": "to look",
    "asked_at": AT,
    "waiting": 1,
}
GRANT = {
    "id": "0b",
    "plugin": "acme/weather",
    "rule": "storage",
    "effect": "grant",
    "digest": DIGEST,
    "granter": "operator:me",
    "reason": "because",
    "created_at": AT,
    "expires_at": AT,
}
UNUSED = {"id": "0b", "plugin": "acme/weather", "rule": "ui.notify", "granter": "operator:me", "since": AT}
USE = {"plugin": "acme/weather", "permission": "storage.read", "allowed": 3, "denied": 0, "last_at": AT}
ROLE = {
    "name": "keeper",
    "rules": ["storage", "ui"],
    "plugins": ["acme/weather"],
    "changed_by": "operator:me",
    "changed_at": AT,
}
WHY = {
    "plugin": "acme/weather",
    "permission": "storage.read",
    "allowed": True,
    "verdict": "it may",
    "rules": ["storage granted"],
}
VERIFIED = {
    "entries": 3,
    "of": 3,
    "checkpoints": 1,
    "first_bad": None,
    "problem": None,
    "is_done": True,
}
AUDIT = {
    "id": 9,
    "at": AT,
    "actor": "plugin:acme/weather",
    "action": "host_call",
    "outcome": "denied",
    "plugin": "acme/weather",
    "detail": {"need": "storage.write"},
}
SUMMARY = {
    "name": "acme/weather",
    "summary": "Weather for cities",
    "kind": "tool",
    "categories": ["weather"],
    "latest": "1.2.0",
    "published_at": AT,
}


def release(version: str) -> dict[str, Any]:
    """A release as the marketplace tells it."""
    return {
        "version": version,
        "digest": DIGEST,
        "size": 2048,
        "keyid": KEYID,
        "published_at": AT,
        "manifest": {
            "manifest_version": 1,
            "name": "acme/weather",
            "version": version,
            "summary": "Weather for cities",
            "authors": ["Ada"],
            "license": "MIT",
            "runtime": {"type": "python", "entry": "plugin:plugin"},
            "permissions": [{"need": "net.connect:api.example.org:443", "reason": "it asks there"}],
        },
        "functions": [FUNCTION],
        "public_key": "ed25519:" + "A" * 43 + "=",
    }


def listed(version: str) -> dict[str, Any]:
    """A release in a list."""
    return {key: release(version)[key] for key in ("version", "digest", "size", "keyid", "published_at")}


DETAIL = SUMMARY | {
    "owner": "acme",
    "license": "MIT",
    "homepage": None,
    "permissions": [],
    "releases": [listed(version) for version in ("1.2.0", "1.10.0-beta.1", "1.1.0", "0.9.0")],
    "readme": "# Weather",
}
ACCOUNT = {"name": "acme", "namespaces": ["acme"], "created_at": AT}
KEY = {
    "keyid": KEYID,
    "public_key": "ed25519:" + "A" * 43 + "=",
    "account": "acme",
    "label": "default",
    "created_at": AT,
    "revoked_at": None,
}
REGISTRATION = {
    "account": ACCOUNT,
    "token": {
        "id": "0123456789abcdef",
        "label": "first",
        "scopes": ["account", "publish"],
        "created_at": AT,
        "expires_at": AT,
        "secret": MARKET_TOKEN,
    },
}


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body as JSON."""
        return json.loads(self.body)


def page(*items: Any) -> dict[str, Any]:
    """A last page."""
    return {"items": list(items), "next": None}


Answering = Callable[[Asked], Any]


@dataclass
class Services:
    """Answers by method and path; an error is answered as its problem document, a text as an event stream."""

    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def answer(self, asked: Asked) -> tuple[int, str, bytes]:
        """Status, content type and body for a request."""
        self.asked.append(asked)
        path = asked.path.partition("?")[0]
        found = self.answers.get(f"{asked.method} {path}", NotFoundError(f"nothing at {path}"))
        found = found(asked) if callable(found) else found
        if isinstance(found, WirthForgeError):
            problem = problem_of(found)
            return problem.status, CONTENT_TYPE, problem.model_dump_json().encode()
        if isinstance(found, bytes):
            return 200, "application/octet-stream", found
        if isinstance(found, str):
            return 200, "text/event-stream", found.encode()
        return 200, "application/json", json.dumps(found).encode()

    def sent_to(self, what: str) -> Asked:
        """The last request of that method and path."""
        return next(each for each in reversed(self.asked) if f"{each.method} {each.path}" == what)


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[Services]:
    """The services on a free port, until the block ends."""
    pytest_socket.enable_socket()  # unit tests have none; this one stays on the machine
    services = Services(answers)

    class Exchange(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, answer = services.answer(Asked(self.command, self.path, dict(self.headers), body))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 (the library's names)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Exchange) as server:
        services.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield services
        server.shutdown()
        thread.join(10)


SAMPLE = {
    "at": "2026-03-01T12:00:00Z",
    "cpus": 0.45,
    "cpu_share": 0.9,
    "cpu_s": 12.5,
    "throttled": 0.2,
    "memory_bytes": 64 * MIB,
    "memory_share": 0.5,
    "memory_peak_bytes": 80 * MIB,
    "pids": 4,
    "pids_share": 0.06,
    "pids_refused": 0,
    "oom_kills": 0,
    "io_read_bytes_per_s": 0.0,
    "io_written_bytes_per_s": 2048.0,
    "io_operations_per_s": 1.0,
    "cpu_pressure": 12.0,
    "memory_pressure": None,
    "io_pressure": None,
}
USAGE = {"plugin": "acme/weather", "instance": "i1", "source": "cgroup v1, direct", "sample": SAMPLE}
UNREAD = {"plugin": "acme/other", "instance": "i2", "source": "not readable: \x1b[2Jno", "sample": None}
OVERRIDE = {
    "cpus": 0.25,
    "memory_bytes": None,
    "pids": None,
    "io_bytes_per_s": None,
    "io_operations_per_s": None,
    "calls_per_s": None,
    "priority": "low",
}
PERCENTILES = {"count": 60, "mean": 0.2, "max": 0.5, "p50": 0.1, "p95": 0.4, "p99": 0.5}
USED = {
    "plugin": "acme/weather",
    "limits": TIERS[Tier.SMALL].model_dump(),
    "override": OVERRIDE,
    "now": USAGE,
    "instances": [USAGE, USAGE | {"instance": "i9"}],
    "recent": {"at": [], "metrics": {}},
    "history": {"whole": {"cpus": PERCENTILES, "memory_bytes": PERCENTILES}, "minutes": [], "series": {}},
}
LIMITED = {
    "plugin": "acme/weather",
    "limits": USED["limits"],
    "override": OVERRIDE,
    "applied": ["cpus"],
    "at_next_start": ["memory_bytes"],
}
SUGGESTED = {
    "plugin": "acme/weather",
    "samples": 900,
    "needed": 600,
    "items": [
        {"limit": "memory_bytes", "current": 134217728, "suggested": 67108864, "reason": "p99 is 40 MiB"}
    ],
}


def host_answers() -> dict[str, Any]:
    """A host with one plugin."""
    stream = f"event: log\ndata: {json.dumps(LOG | {'id': 8, 'message': 'it pours'})}\n\n"
    at = "/v1/plugins/acme/weather"
    effective = {
        "plugin": "acme/weather",
        "instance": "i1",
        "settings": {"network_mode": "none", "pids": 64},
        "kernel": {"uids": [61000]},
        "start": "warm",
        "start_reason": "a blank sandbox was ready",
        "kernel_path": "proc",
        "mismatches": [],
        "grade": {
            "points": 12,
            "lines": [
                {"name": "capabilities", "points": 12, "of": 12, "reason": "none"},
                {"name": "mandatory access", "points": 0, "of": 4, "reason": "no AppArmor profile"},
            ],
        },
    }
    return {
        "GET /v1/plugins": page(RUNNING),
        f"GET {at}": WAITING,
        f"POST {at}/enable": RUNNING,
        f"PUT {at}/instances": RUNNING
        | {
            "instances": [INSTANCE, INSTANCE | {"id": "i9"}],
            "scale": {"least": 1, "most": 4, "now": 3, "reason": "busy"},
        },
        f"POST {at}/disable": RUNNING
        | {"state": "stopped", "cause": "by the operator", "instance": None, "instances": []},
        f"POST {at}/throttle": RUNNING | {"state": "throttled", "cause": "an operator's decision"},
        f"POST {at}/pause": RUNNING | {"state": "paused", "cause": "an operator's decision"},
        f"POST {at}/resume": RUNNING,
        f"POST {at}/kill": RUNNING | {"state": "unhealthy", "cause": "an operator's decision"},
        f"POST {at}/quarantine": RUNNING
        | {"state": "quarantined", "cause": "it mines", "instance": None, "instances": []},
        "POST /v1/emergency": {"plugins": {"acme/weather": ""}},
        f"DELETE {at}": {},
        f"GET {at}/effective": effective,
        f"GET {at}/logs": page(LOG),
        f"GET {at}/logs/stream": stream,
        "GET /v1/resources": {"items": [UNREAD, USAGE]},
        "GET /v1/resources/stream": f"event: usage\ndata: {json.dumps({'items': [USAGE]})}\n\n",
        f"GET {at}/resources": USED,
        f"PUT {at}/resources": LIMITED,
        f"GET {at}/recommendations": SUGGESTED,
        f"POST {at}/recommendations/apply": LIMITED,
        f"POST {at}/restart": RUNNING,
        f"GET {at}/upgrades": page(UPGRADE),
        f"POST {at}/upgrades": UPGRADE,
        f"DELETE {at}/upgrades/open": {},
        f"POST {at}/upgrades/open/promote": UPGRADE | {"cause": "promoted by hand"},
        f"POST {at}/rollback": UPGRADE | {"state": "rolled_back", "cause": "rolled back"},
        f"GET {at}/snapshots": page(SNAPSHOT),
        f"POST {at}/snapshots": SNAPSHOT,
        f"POST {at}/snapshots/7/restore": SNAPSHOT,
        f"DELETE {at}/snapshots/7": {},
        "POST /v1/storage/rotation": ROTATION | {"done": False, "plugins_left": ["acme/weather"]},
        "GET /v1/storage/rotation": ROTATION,
        "POST /v1/installs": WAITING,
        "POST /v1/permissions": RUNNING,
        "GET /v1/permissions": page(GRANT),
        "DELETE /v1/permissions/0b": {},
        "GET /v1/permissions/requests": page(REQUEST),
        "POST /v1/permissions/requests/0a": REQUEST,
        "GET /v1/permissions/roles": page(ROLE),
        "PUT /v1/permissions/roles/keeper": ROLE,
        "DELETE /v1/permissions/roles/keeper": {},
        "GET /v1/permissions/why": WHY,
        "GET /v1/permissions/uses": page(USE),
        "GET /v1/permissions/unused": page(UNUSED),
        "POST /v1/calls": CALLED,
        "GET /v1/audit": page(AUDIT),
        "POST /v1/audit/checkpoints": {"origin": "wirthforge/audit/h", "key": "ed25519:k", "note": "a\n"},
        "POST /v1/audit/verification": f"event: verified\ndata: {json.dumps(VERIFIED)}\n\n",
        "GET /v1/policy": {"cap": {"pids": 100}},
        "GET /healthz": {"status": "ok", "checks": {}},
        "GET /readyz": {"status": "ok", "checks": {"database": "ok", "engine": "ok", "image": "ok"}},
    }


def marketplace_answers() -> dict[str, Any]:
    """A marketplace with one plugin and one account."""
    at = "/v1/plugins/acme/weather"
    return {
        "GET /healthz": {"status": "ok", "checks": {}},
        "GET /v1/plugins": page(SUMMARY),
        f"GET {at}": DETAIL,
        **{f"GET {at}/{each['version']}": release(each["version"]) for each in DETAIL["releases"]},
        "POST /v1/accounts": REGISTRATION,
        "GET /v1/accounts/me": ACCOUNT,
        "GET /v1/keys": page(KEY),
        "POST /v1/keys": KEY,
        f"DELETE /v1/keys/{KEYID}": {},
        "POST /v1/releases": release("1.2.0"),
    }
