"""Demonstrations: what the platform does, shown on this machine."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wirthforge_sdk.cli.output import UNEXPECTED, Answer, say, working

if TYPE_CHECKING:
    from wirthforge_sdk.cli.battery.catalogue import Finding
    from wirthforge_sdk.cli.staging import Stage

UID_BASE: Final = 63_200
"""Away from the user ids of another host on this machine: the kernel counts some things a user."""


async def attack(
    only: Annotated[str | None, typer.Option(metavar="GROUP", help="Only the attacks of this group.")] = None,
    keep: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--keep", help="Leave marketplace, host and what they wrote, and say where.")
    ] = False,
) -> AsyncIterator[Answer]:
    """Attack a live sandbox in every known way, and show what stopped each attack.

    Starts a marketplace and a host of its own, publishes and installs a hostile plugin and a quiet neighbour, and has
    the one attack while the other works. With --json, one document a line. Exits with 1 when anything was reached.
    """
    from wirthforge_sdk.cli.staging import Narrator, Stage

    state = Path(tempfile.mkdtemp(prefix="wirthforge-attack-"))
    stage = Stage(state, Narrator(quiet=True))
    findings: list[Finding] = []
    try:
        with working("Publishing and installing a hostile plugin and its neighbour"):
            await asyncio.to_thread(prepare, stage)
        async for finding in _findings(stage, only):
            findings.append(finding)
            yield Answer(finding.as_dict(), partial(_shown, finding), UNEXPECTED * finding.reached)
        say(_summary(findings))
        if keep:
            say(f"left running: {stage.host_url}, {stage.marketplace_url}; everything is in {state}")
        else:
            await asyncio.to_thread(stop, stage)
            shutil.rmtree(state)
    except BaseException:
        stage.kill()
        say(f"what was written until then is in {state}")
        raise


def prepare(stage: Stage) -> None:
    """A marketplace and a host, and the two plugins of the battery installed from the one by the other."""
    from wirthforge_sdk.cli.battery.catalogue import HOSTILE, HOSTILE_PROJECT, QUIET, QUIET_PROJECT
    from wirthforge_sdk.cli.staging import image_python

    python = image_python()
    stage.serve("marketplace", stage.marketplace_url, {})
    stage.serve(
        "host",
        stage.host_url,
        {"MARKETPLACE_URL": stage.marketplace_url, "HOST_ID": stage.host_id, "UID_BASE": str(UID_BASE)},
    )
    for service in stage.services:
        service.wait_ready()
    stage.command("login", "--register", "demo")
    stage.command("keys", "new", "author", "--no-passphrase")
    stage.command("keys", "register", "author")

    def install(project: Path, name: str) -> None:
        stage.command("publish", str(project), "--key", "author", "--python", python)
        stage.command("install", name)
        stage.command("approve", name, "--yes")

    with ThreadPoolExecutor(2) as both:
        for done in [
            both.submit(install, HOSTILE_PROJECT, HOSTILE),
            both.submit(install, QUIET_PROJECT, QUIET),
        ]:
            done.result()


def stop(stage: Stage) -> None:
    """Stops everything, and sees that nothing is left."""
    from wirthforge_sdk.cli.staging import expect

    for service in reversed(stage.services):
        service.stop()
    left = stage.left_behind()
    expect(not any(left.values()), f"left behind: {left}")


async def _findings(stage: Stage, only: str | None) -> AsyncIterator[Finding]:
    from wirthforge_sdk.cli.battery.driver import Siege
    from wirthforge_sdk.cli.battery.watching import Watch
    from wirthforge_sdk.client import HostClient

    token = stage.token_file.read_text(encoding="utf-8").strip()
    pid = next(service.process.pid for service in stage.services if service.name == "host")
    async with HostClient(stage.host_url, token) as host, Watch(host, pid).running() as watch:
        siege = Siege(host, watch)
        async for finding in siege.run(await siege.catalogue(only)):
            yield finding


def _shown(finding: Finding) -> str:
    from wirthforge_sdk.contracts.text import clean

    verdict = "REACHED" if finding.reached else f"stopped by {finding.stopped_by}"
    felt = finding.disturbance
    host = f"host {100 * felt.host_cpu:.0f} % of a core, {felt.host_mib:.0f} MiB"
    neighbour = f"neighbour {felt.calls} calls, p50 {felt.p50_ms:.1f} ms, longest {felt.longest_ms:.0f} ms"
    lines = [
        f"{finding.attack.group}.{finding.attack.name}: {finding.attack.tries}",
        f"  {verdict}: {clean(finding.detail)}",
        f"  audit {clean(finding.record)[:300]}",
        f"  {host}; {neighbour}",
    ]
    return "\n".join(lines)


def _summary(findings: list[Finding]) -> str:
    reached = [finding.attack.name for finding in findings if finding.reached]
    felt = [finding.disturbance for finding in findings]
    p50_ms = statistics.median(each.p50_ms for each in felt)
    longest_ms = max(each.longest_ms for each in felt)
    failed = sum(len(each.faults) for each in felt)
    busiest = 100 * max(each.host_cpu for each in felt)
    told = f": {', '.join(reached)}" if reached else ""
    return (
        f"{len(findings)} attacks, {len(reached)} reached{told}. Meanwhile the neighbour's calls took {p50_ms:.1f} ms "
        f"(p50), {longest_ms:.0f} ms at the longest, and {failed} failed; "
        f"the host used at most {busiest:.0f} % of a core."
    )
