"""Whether what connected is the plugin it should be: handshake, functions, self-test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from wirthforge_host.bridge import Endpoint, Session
from wirthforge_host.errors import FunctionDriftError, PluginUnavailableError
from wirthforge_host.plugins.drift import Offer, compare, describe
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_sdk.contracts.manifest import Function, Health, RuntimeType
from wirthforge_sdk.errors import WirthForgeError


async def connected(endpoint: Endpoint, exited: asyncio.Event, *, timeout_s: float) -> Session:
    """The session once the plugin connected; does not wait on for a process that ended.

    Raises:
        PluginUnavailableError: It ended, or did not connect in time.
    """
    accepted = asyncio.create_task(endpoint.accept(timeout_s=timeout_s))
    ended = asyncio.create_task(exited.wait())
    try:
        await asyncio.wait({accepted, ended}, return_when=asyncio.FIRST_COMPLETED)
        if accepted.done():
            return accepted.result()
        raise PluginUnavailableError("it ended before it connected")
    finally:
        for task in (accepted, ended):
            task.cancel()
        await asyncio.gather(accepted, ended, return_exceptions=True)


async def examine(
    session: Session, record: PluginRecord, approved: Sequence[Function], *, timeout_s: float
) -> Offer:
    """Opens the session; returns what it offers when the plugin is found right. It is sent no event yet.

    Of an MCP server, functions that differ are quarantined; a plugin of ours then does not start.

    Args:
        session: Not open yet.
        record: What it should be.
        approved: Its functions, as they were signed or approved since.
        timeout_s: For each of the first two steps; a self-test says its own.

    Raises:
        FunctionDriftError: It offers other functions than those that were signed and approved, or a server's own
            self-test is one of those that differ.
        PluginUnavailableError: It does not greet, or fails its self-test.
    """
    try:
        await session.open(timeout_s=timeout_s, protocol=record.release.manifest.runtime.protocol)
        told = await session.list_tools(timeout_s=timeout_s)
    except WirthForgeError as error:
        # Whatever it answered, or did not, nobody else is to blame for it.
        raise PluginUnavailableError(error.message) from error
    manifest, offer = record.release.manifest, compare(approved, told)
    tests_with = manifest.health.function if manifest.health is not None else None
    if offer.quarantined and (manifest.runtime.type is RuntimeType.PYTHON or tests_with in offer.quarantined):
        drifted = describe(offer.quarantined)
        raise FunctionDriftError(
            f"{record.name} offers other functions than were signed and approved: {'; '.join(drifted[:5])}",
            plugin=record.name,
            differences=drifted,
        )
    if manifest.health is not None:
        await self_test(session, manifest.health)
    return offer


async def self_test(session: Session, health: Health, *, patience_s: float = 0.0) -> None:
    """Has the plugin test itself; it may take ``patience_s`` longer than it says.

    Raises:
        PluginUnavailableError: It did not pass, or did not answer.
    """
    try:
        result = await session.call(
            health.function,
            health.arguments,
            timeout_s=health.timeout_s + patience_s,
            call_id="self-test",
        )
    except WirthForgeError as error:
        raise PluginUnavailableError(f"its self-test failed: {error.message}") from error
    if result.is_error:
        raise PluginUnavailableError(f"its self-test {health.function} answered that it failed")
