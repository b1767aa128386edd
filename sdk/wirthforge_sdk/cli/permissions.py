"""Permissions of running plugins: what they ask for, why something is allowed, what nobody uses."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer, can_ask, confirm
from wirthforge_sdk.errors import InvalidInputError

Name = Annotated[str, typer.Argument(metavar="NAME", help="namespace/name of an installed plugin.")]
OfName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this plugin's.")]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="As `wirthforge permissions pending` shows it.")]
Reason = Annotated[str, typer.Option(help="Why, for the audit log.")]
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400}


async def pending() -> Answer:
    """Show what running plugins ask for and wait for."""
    from wirthforge_sdk.cli import permission_views as views

    async with services.host() as host:
        page = await host.permission_requests()
    return Answer(page, lambda: views.pending(page.items))


async def approve(
    request: RequestId,
    lasting: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", help="How long it holds: 30m, 12h, 7d. Without: until revoked."
        ),
    ] = None,
    reason: Reason = "decided by the operator",
) -> Answer:
    """Grant what a running plugin asks for; its call goes on."""
    return await _answered(
        request, {"decision": "approve", "reason": reason, "expires_in_s": seconds_of(lasting)}
    )


async def deny(
    request: RequestId,
    always: Annotated[bool, typer.Option("--always", help="Also when it asks again.")] = False,  # noqa: FBT002 (an option)
    reason: Reason = "decided by the operator",
) -> Answer:
    """Deny what a running plugin asks for; its call learns that at once."""
    return await _answered(request, {"decision": "deny_always" if always else "deny", "reason": reason})


async def rules(name: OfName = None) -> Answer:
    """Show the rules in force, with their ids."""
    from wirthforge_sdk.cli import permission_views as views

    async with services.host() as host:
        page = await host.permissions(name)
    return Answer(page, lambda: views.rules(page.items))


async def revoke(rule: Annotated[str, typer.Argument(metavar="RULE", help="Its id.")]) -> Answer:
    """Take a rule back; it ends at once, also for what is at work."""
    async with services.host() as host:
        await host.withdraw(rule)
    return Answer({"revoked": rule}, lambda: f"{rule} is revoked.")


async def why(
    name: Name,
    permission: Annotated[
        str, typer.Argument(metavar="PERMISSION", help="Such as net.connect:api.example.org:443.")
    ],
) -> Answer:
    """Say whether a plugin may do something, and which rules make it so."""
    async with services.host() as host:
        found = await host.why(name, permission)
    return Answer(found, lambda: "\n".join((found.verdict, *(f"  {rule}" for rule in found.rules))))


async def used(name: OfName = None) -> Answer:
    """Show how often permissions were used and denied."""
    from wirthforge_sdk.cli import permission_views as views

    async with services.host() as host:
        page = await host.permission_uses(name)
    return Answer(page, lambda: views.used(page.items))


async def unused(
    name: OfName = None,
    take_back: Annotated[bool, typer.Option("--revoke", help="Take them all back.")] = False,  # noqa: FBT002 (an option)
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Show grants that nothing was ever done with, and take them back if you like."""
    from wirthforge_sdk.cli import permission_views as views

    async with services.host() as host:
        page = await host.unused_permissions(name)
        if take_back and page.items:
            if not yes and can_ask():
                confirm(f"Take back {len(page.items)} grants that were never used?")
            for grant in page.items:
                await host.withdraw(grant.id)
    return Answer(page, lambda: views.unused(page.items, revoked=take_back))


async def roles() -> Answer:
    """Show the bundles of rules with a name, and which plugins have them."""
    from wirthforge_sdk.cli import permission_views as views

    async with services.host() as host:
        page = await host.roles()
    return Answer(page, lambda: views.roles(page.items))


async def role(
    name: Annotated[str, typer.Argument(metavar="ROLE", help="Its name.")],
    rules: Annotated[
        list[str] | None, typer.Argument(metavar="RULE...", help="Such as storage or events.publish:news.*")
    ] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Forget it; no plugin may have it.")] = False,  # noqa: FBT002 (an option)
) -> Answer:
    """Define a role: what every plugin may that has it changes at once.

    Give it with `wirthforge approve NAME --grant role:ROLE`. A plugin gets of it what its release asks for.
    """
    if drop == bool(rules):
        raise InvalidInputError("name the rules of the role, or say --drop", field="rules")
    async with services.host() as host:
        if drop:
            await host.drop_role(name)
            return Answer({"dropped": name}, lambda: f"There is no role {name} any more.")
        defined = await host.define_role(name, rules or [])
    told = f"{', '.join(defined.rules)}; {len(defined.plugins)} plugins have it"
    return Answer(defined, lambda: f"{defined.name}: {told}.")


async def suggest_manifest(name: Name) -> Answer:
    """Write the smallest [[permissions]] of plugin.toml that what the plugin did so far needs.

    Have it do all it can do first, in a host of your own.
    """
    async with services.host() as host:
        plugin = await host.plugin(name)
        page = await host.permission_uses(name)
    known = {asked.need: asked for asked in plugin.permissions}
    needs = sorted(use.permission for use in page.items)
    wanted = [
        {
            "need": need,
            "reason": known[need].reason if need in known else "say what for",
            "optional": need in known and known[need].optional,
        }
        for need in needs
    ]
    return Answer(
        {"permissions": wanted, "not_used": sorted(known.keys() - set(needs))}, lambda: _toml(name, wanted)
    )


async def _answered(request: str, fields: dict[str, Any]) -> Answer:
    from wirthforge_sdk.client.connection import given
    from wirthforge_sdk.contracts.permissions_api import AnswerIn

    with given():
        answer = AnswerIn.model_validate(fields)
    async with services.host() as host:
        asked = await host.answer(request, answer)
    done = "has" if answer.decision == "approve" else "does not get"
    return Answer(asked, lambda: f"{asked.plugin} {done} {asked.permission}.")


def _toml(name: str, wanted: list[dict[str, Any]]) -> str:
    if not wanted:
        return f"# {name} needed no permission so far"
    tables = (
        # JSON's texts and booleans are TOML's.
        "[[permissions]]\n"
        + "\n".join(f"{key} = {json.dumps(value)}" for key, value in each.items() if value)
        for each in wanted
    )
    return "\n\n".join(tables)


def seconds_of(text: str | None) -> float | None:
    """What stands behind ``--for``, in seconds.

    Raises:
        InvalidInputError: It is no time.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhd])", text)
    if found is None:
        raise InvalidInputError(f"--for '{text}' is no time: write 30m, 12h or 7d", field="for")
    return float(int(found[1]) * _UNITS[found[2]])
