"""Tokens of a host, and calls over MCP that wait for a yes."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer
from wirthforge_sdk.cli.settings import write_private

Id = Annotated[str, typer.Argument(metavar="ID", help="As it is listed.")]


async def new_token(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Whose it is; appears in the audit log.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="read, operate, call; or call:namespace/name.function, for MCP clients, with * for anything within a "
            "part. Repeatable."
        ),
    ],
    days: Annotated[int | None, typer.Option(min=1, help="How long it is good; for ever by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for it, readable by you alone; not printed then.")
    ] = None,
) -> Answer:
    """Make a token that may do no more than your own, such as one for an MCP client."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    async with services.host() as host:
        made = await host.make_token(label, scope, expires_at=expires_at)
    if out is None:
        return Answer(made, lambda: f"{made.secret}\nKeep it: it is not shown again.")
    write_private(out, f"{made.secret}\n")
    told = made.model_dump(mode="json", exclude={"secret"})
    return Answer(told, lambda: f"The token {made.id} is in {out}.")


async def tokens() -> Answer:
    """Show the tokens of the host; never their secrets."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.tokens()
    rows = [
        (
            each.id,
            each.label,
            " ".join(each.scopes),
            views.moment(each.created_at),
            "revoked" if each.revoked_at else views.moment(each.expires_at) if each.expires_at else "no end",
        )
        for each in page.items
    ]
    return Answer(page, lambda: views.table(("Id", "Label", "Scopes", "Made", "Ends"), rows))


async def revoke_token(token: Id) -> Answer:
    """Make a token useless at once."""
    async with services.host() as host:
        await host.revoke_token(token)
    return Answer({"revoked": token}, lambda: f"The token {token} is revoked.")


async def pending() -> Answer:
    """Show the calls of MCP clients that wait for a yes, with their arguments."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.pending_calls()
    rows = [
        (
            each.id,
            each.caller,
            f"{each.plugin}.{each.function}",
            f"{each.arguments_bytes} bytes" if each.arguments is None else json.dumps(each.arguments),
            views.moment(each.expires_at),
        )
        for each in page.items
    ]
    columns = ("Id", "Caller", "Function", "Arguments", "Waits until")
    return Answer(page, lambda: views.table(columns, rows) if rows else "No call waits.")


async def approve(
    call: Id,
    always: Annotated[  # noqa: FBT002 (an option)
        bool, typer.Option("--always", help="Also later calls of this token, function and release.")
    ] = False,
) -> Answer:
    """Let a waiting call go on."""
    async with services.host() as host:
        made = await host.approve_call(call, always=always)
    return Answer(made, lambda: f"{made.plugin}.{made.function} is called for {made.caller}.")


async def deny(call: Id) -> Answer:
    """Refuse a waiting call."""
    async with services.host() as host:
        refused = await host.deny_call(call)
    return Answer(refused, lambda: f"{refused.plugin}.{refused.function} is not called for {refused.caller}.")


async def standing() -> Answer:
    """Show the approvals that hold for later calls too."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.standing_approvals()
    rows = [
        (each.id, each.caller, f"{each.plugin}.{each.function}", each.granter, views.moment(each.created_at))
        for each in page.items
    ]
    columns = ("Id", "Caller", "Function", "Granter", "Since")
    return Answer(page, lambda: views.table(columns, rows) if rows else "No approval stands.")


async def forget(approval: Id) -> Answer:
    """Take a standing approval back: the next such call is asked about."""
    async with services.host() as host:
        await host.withdraw_approval(approval)
    return Answer({"withdrawn": approval}, lambda: f"The approval {approval} stands no more.")
