"""The operator's policy: ``policy check`` before it is used, ``policy show`` for what is in force."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import Answer
from wirthforge_sdk.errors import InvalidInputError


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A policy.toml.")],
) -> Answer:
    """Check a security policy before a host is started with it.

    Shows each rule that differs from the house's own. With --json, the whole policy with every default.
    """
    from wirthforge_sdk.cli import views
    from wirthforge_sdk.contracts.policy import MAX_POLICY_BYTES, parse_policy

    try:
        with file.open("rb") as opened:
            found = parse_policy(opened.read(MAX_POLICY_BYTES + 1))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", field="file") from error
    return Answer(found, lambda: views.policy(found, everything=False))


async def show() -> Answer:
    """Show the security policy that the host holds plugins to.

    Every rule; those that its operator changed stand out. A host reads its policy when it starts.
    """
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        found = await host.policy()
    return Answer(found, lambda: views.policy(found, everything=True))
