"""The audit log: searched, followed, verified, exported."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.output import UNEXPECTED, Answer, working
from wirthforge_sdk.errors import ConflictError, InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from wirthforge_sdk.contracts.audit_api import AuditOut, VerificationOut
    from wirthforge_sdk.packaging.checkpoints import Checkpoint
    from wirthforge_sdk.packaging.keys import PublicKey

Plugin = Annotated[str | None, typer.Option(metavar="NAME", help="Only this plugin's.")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="How many.")]
CHUNK: Final = 256 * 1024
_AGO: Final = {"m": "minutes", "h": "hours", "d": "days"}


async def search(
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="What stands somewhere in the detail or in who it was."),
    ] = None,
    plugin: Plugin = None,
    action: Annotated[
        str | None,
        typer.Option(help="Such as 'call'; with a dot at its end ('permission.') all that begin so."),
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="allowed, denied or failed.")] = None,
    since: Annotated[
        str | None, typer.Option(help="A time (ISO 8601), or how long ago: 30m, 12h, 7d.")
    ] = None,
    limit: Limit = 20,
) -> Answer:
    """Find records of the audit log; the newest last.

    It tells who did what and whether it was allowed, with the shapes of arguments and never their values.
    """
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.audit(
            plugin=plugin,
            action=action,
            outcome=outcome,
            since=_moment(since),
            text=text,
            limit=limit,
        )
    return Answer(page, lambda: views.audit(page.items))


async def tail(
    plugin: Plugin = None,
    limit: Limit = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as records are written.")] = False,  # noqa: FBT002 (an option)
) -> AsyncIterator[Answer]:
    """Show the newest records of the audit log, and with -f those to come."""
    async with services.host() as host:
        page = await host.audit(plugin=plugin, limit=limit)
        for record in reversed(page.items):
            yield _shown(record)
        if follow:
            after = page.items[0].id if page.items else None
            async for record in host.follow_audit(after=after):
                if plugin in {None, record.plugin}:
                    yield _shown(record)


async def verify(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="An exported log. Without: the log of the host.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="NOTE", help="A checkpoint that was kept elsewhere: what was before it must be as it was."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The key of the log (ed25519:…), known from elsewhere. Needed with FILE to trust it."
        ),
    ] = None,
) -> Answer:
    """Compute the audit log again and find what was changed, removed, inserted or moved.

    The log of the host is checked by the host. To trust neither, export it and check the file on a machine of your
    own, with the key and a checkpoint that you kept there.
    """
    from wirthforge_sdk.cli import views

    note = None if checkpoint is None else _read_note(checkpoint)
    if file is not None:
        return _file_verified(file, key, note)
    async with services.host() as host:
        found: VerificationOut | None = None
        with working("Verifying the audit log"):
            async for told in host.verify_audit(note):
                found = told
    if found is None or not found.is_done:
        raise UnavailableError("the host ended before it had verified its log: try again")
    last = found
    return Answer(last, lambda: views.verification(last), 0 if last.problem is None else UNEXPECTED)


async def checkpoint() -> Answer:
    """Print a signed statement of what the audit log is now, to be kept elsewhere.

    `wirthforge audit verify --checkpoint NOTE` shows later whether anything before it was changed, also by somebody
    who could write the whole database.
    """
    async with services.host() as host:
        made = await host.checkpoint()
    return Answer(made, lambda: made.note.removesuffix("\n"))


async def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A file that is not there yet.")
    ],
    after: Annotated[int, typer.Option(min=0, help="Only records above this id.")] = 0,
    form: Annotated[
        str,
        typer.Option(
            help="chain: can be verified anywhere. au3: the fields of NIST SP 800-53 AU-3, for other tools."
        ),
    ] = "chain",
) -> Answer:
    """Write the audit log to a file of JSON lines, oldest first."""
    written = 0
    part = output.with_name(f"{output.name}.part")
    async with services.host() as host:
        with working(f"Exporting to {output}"):
            try:
                with part.open("xb") as out:
                    async for chunk in host.export_audit(after=after, form=form):
                        written += out.write(chunk)
                _move(part, output)
            except FileExistsError:
                raise ConflictError(f"{output} is there already, or being written: choose another") from None
            except OSError as error:
                raise InvalidInputError(
                    f"{output} cannot be written: {error.strerror}", field="output"
                ) from error
            finally:
                if written:
                    part.unlink(missing_ok=True)
    return Answer({"file": str(output), "bytes": written}, lambda: f"{output}: {written:,} bytes")


def _move(part: Path, output: Path) -> None:
    """Gives the whole file its name, unless that is taken."""
    output.hardlink_to(part)


def _shown(record: AuditOut) -> Answer:
    from wirthforge_sdk.cli import views

    return Answer(record, lambda: views.audit([record]))


def _file_verified(file: Path, key: str | None, note: str | None) -> Answer:
    from wirthforge_sdk.packaging.checkpoints import audited
    from wirthforge_sdk.packaging.keys import PublicKey

    known = None if key is None else PublicKey.parse(key)
    try:
        with file.open("rb") as opened, working(f"Verifying {file}"):
            found = audited(iter(lambda: opened.read(CHUNK), b""), known, _remembered(note, known))
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", field="file") from error
    value = {
        "origin": found.origin,
        "first": found.first,
        "last": found.last,
        "checkpoints": found.checkpoints,
        "key_known": known is not None,
    }
    trust = "" if known else " Signed with the key that the file names: give --key to know whose that is."
    told = f"Whole: records {found.first:,} to {found.last:,} of {found.origin}.{trust}"
    return Answer(value, lambda: told)


def _remembered(note: str | None, key: PublicKey | None) -> Checkpoint | None:
    from wirthforge_sdk.packaging.checkpoints import Checkpoint

    if note is None:
        return None
    if key is None:
        raise InvalidInputError(
            "a checkpoint is checked with the key of the log: give --key too", field="key"
        )
    return Checkpoint.read(note, key)


def _read_note(path: Path) -> str:
    from wirthforge_sdk.packaging.signed_note import MAX_NOTE_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_NOTE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError):
        raise InvalidInputError(f"{path} cannot be read as a checkpoint", field="checkpoint") from None


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    if ago := re.fullmatch(r"([0-9]{1,6})([mhd])", text):
        return datetime.now(UTC) - timedelta(**{_AGO[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"--since '{text}' is no time: write 2026-01-31T12:00 or how long ago, as 30m, 12h or 7d",
            field="since",
        ) from None
