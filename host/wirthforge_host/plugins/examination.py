"""Whether what connected is the plugin it should be: handshake, functions, self-test."""

from __future__ import annotations

from wirthforge_host.bridge import Session
from wirthforge_host.errors import FunctionDriftError, PluginUnavailableError
from wirthforge_host.plugins.drift import differences
from wirthforge_host.plugins.models import PluginRecord
from wirthforge_sdk.contracts.manifest import Health
from wirthforge_sdk.errors import WirthForgeError


async def examine(session: Session, record: PluginRecord, *, timeout_s: float) -> None:
    """Opens the session, and returns when the plugin is found right and is sent events.

    Args:
        session: Not open yet.
        record: What it should be.
        timeout_s: For each of the first two steps; a self-test says its own.

    Raises:
        FunctionDriftError: It offers other functions than those that were signed and approved.
        PluginUnavailableError: It does not greet, or fails its self-test.
    """
    try:
        await session.open(timeout_s=timeout_s)
        told = await session.list_tools(timeout_s=timeout_s)
    except WirthForgeError as error:
        # Whatever it answered, or did not, nobody else is to blame for it.
        raise PluginUnavailableError(error.message) from error
    drifted = differences(record.release.functions, told)
    if drifted:
        raise FunctionDriftError(
            f"{record.name} offers other functions than were signed and approved: {'; '.join(drifted[:5])}",
            plugin=record.name,
            differences=drifted,
        )
    if record.release.manifest.health is not None:
        await _test(session, record.release.manifest.health)
    await session.subscribe(record.release.manifest.events.subscriptions)


async def _test(session: Session, health: Health) -> None:
    try:
        result = await session.call(
            health.function, health.arguments, timeout_s=health.timeout_s, call_id="self-test"
        )
    except WirthForgeError as error:
        raise PluginUnavailableError(f"its self-test failed: {error.message}") from error
    if result.is_error:
        raise PluginUnavailableError(f"its self-test {health.function} answered that it failed")
