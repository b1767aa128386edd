"""``doctor``: what is wrong with this machine's set-up, and what to do about each."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, working
from wirthforge_sdk.cli.settings import Settings, load_settings
from wirthforge_sdk.errors import WirthForgeError

MAX_SKEW_S: Final = 60.0
"""Tokens and grants end at a time; clocks that differ by more end them at another."""

_REMEDIES: Final = {
    "engine": "start a container engine; `make setup` does, where none is installed",
    "image": "build the plugin image with `make setup`",
    "images": "build the plugin image with `make setup`",
    "database": "bring the host's database up to date with `make migrate`",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


async def doctor() -> Answer:
    """Check tools, services, permissions and clock.

    Exits with 1 when something is wrong.
    """
    settings = load_settings()
    with working("Looking around"):
        checks = [
            _tool(),
            *_private_files(settings),
            *await _host(settings),
            *await _marketplace(settings),
        ]
    ill = [check for check in checks if not check.ok]

    def view() -> Any:
        from rich.console import Group
        from rich.text import Text

        from wirthforge_sdk.cli import views

        rows = [
            (Text("ok", style="green") if each.ok else Text("wrong", style="red"), each.name, each.found)
            for each in checks
        ]
        remedies = [views.text(f"- {each.name}: {each.remedy}") for each in ill]
        todo = [views.titled("What to do", Group(*remedies))] if remedies else []
        return Group(views.table(("", "Check", "Found"), rows), *todo)

    return Answer(
        {"ok": not ill, "checks": [asdict(check) for check in checks]}, view, UNEXPECTED if ill else 0
    )


def _tool() -> Check:
    where = shutil.which("uv")
    if where:
        return Check("uv", ok=True, found=where)
    return Check(
        "uv",
        ok=False,
        found="not on the PATH",
        remedy="install uv, or run `make setup`; builds vendor with it",
    )


def _private_files(settings: Settings) -> Iterator[Check]:
    files = [settings.config_file, *settings.directory.glob("*.token"), *settings.keys.glob("*.key")]
    there = [path for path in files if path.exists()]
    # Tokens and keys are as secret as passwords: no bit for group and others.
    for path in (path for path in there if path.stat().st_mode & 0o077):
        yield Check("permissions", ok=False, found=f"others can read {path}", remedy=f"run chmod 600 {path}")
    if not any(path.stat().st_mode & 0o077 for path in there):
        yield Check("permissions", ok=True, found=f"{len(there)} private files in {settings.directory}")


async def _host(settings: Settings) -> list[Check]:
    from wirthforge_sdk.client import HostClient

    url = settings.host.url
    checks: list[Check] = []
    try:
        async with HostClient(url) as anonymous:
            checks += _clock("host", await anonymous.clock())
            readiness = await anonymous.readiness()
    except WirthForgeError as error:
        return [*checks, Check("host", ok=False, found=f"not usable at {url}", remedy=error.message)]
    checks.append(Check("host", ok=True, found=url))
    for name, state in sorted(readiness.checks.items()):
        remedy = "" if state == "ok" else _REMEDIES.get(name, "see the host's own log")
        checks.append(Check(f"host's {name}", ok=state == "ok", found=state, remedy=remedy))
    try:
        async with services.host(settings) as host:
            await host.plugins()
    except WirthForgeError as error:
        return [*checks, Check("host token", ok=False, found="not accepted", remedy=error.message)]
    return [*checks, Check("host token", ok=True, found="accepted")]


async def _marketplace(settings: Settings) -> list[Check]:
    url = settings.marketplace.url
    try:
        async with services.marketplace(settings) as market:
            checks = _clock("marketplace", await market.clock())
            checks.append(Check("marketplace", ok=True, found=url))
        if settings.marketplace.token() is None:
            return checks  # only authors need one
        async with services.marketplace(settings, as_author=True) as market:
            account = await market.account()
    except WirthForgeError as error:
        return [Check("marketplace", ok=False, found=f"not usable at {url}", remedy=error.message)]
    return [*checks, Check("marketplace token", ok=True, found=f"of {account.name}")]


def _clock(of: str, there: datetime | None) -> list[Check]:
    if there is None:
        return []
    skew_s = abs((datetime.now(UTC) - there).total_seconds())
    if skew_s <= MAX_SKEW_S:
        return [Check(f"{of}'s clock", ok=True, found="agrees with this machine's")]
    found = f"differs by {skew_s:.0f} s from this machine's"
    return [
        Check(f"{of}'s clock", ok=False, found=found, remedy="synchronise both clocks, with NTP for example")
    ]
