"""What you set for plugins: ``wirthforge config`` and ``wirthforge secrets``."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wirthforge_sdk.cli import services
from wirthforge_sdk.cli.operator import Name
from wirthforge_sdk.cli.output import Answer, can_ask
from wirthforge_sdk.errors import InvalidInputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from wirthforge_sdk.contracts.configuration_api import ConfigurationOut, DeliveryOut

Reason = Annotated[str | None, typer.Option(help="Why, for whoever looks later.")]
Secret = Annotated[str, typer.Argument(metavar="SECRET", help="Its name, as the plugin asks for it.")]
MAX_SECRET = 64 * 1024
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


async def get(name: Name) -> Answer:
    """Show what is set for a plugin, what is in force, and what is still missing."""
    async with services.host() as host:
        told = await host.configuration(name)
        form = await host.configuration_form(name)

    def view() -> RenderableType:
        from rich.console import Group

        from wirthforge_sdk.cli import views

        rows = [
            (
                each.path,
                _text(each.current),
                "you" if each.is_set else "default",
                each.type,
                each.help or each.label,
            )
            for each in form.fields
        ]
        columns = ("Setting", "Value", "By", "Type", "What")
        return Group(views.table(columns, rows), *_remarks(told))

    return Answer(told, view)


async def set_values(
    name: Name,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="SETTING=VALUE", help="Such as limits.per_day=20.")
    ] = None,
    unset: Annotated[list[str] | None, typer.Option(metavar="SETTING", help="Take this away.")] = None,
    reason: Reason = None,
) -> Answer:
    """Set values of a plugin's configuration; those not named stay as they are.

    Each is read as its type by the plugin's schema: true or false, numbers, texts as they are, lists as JSON or with
    commas. The plugin is told at once if it runs, and starts if it waited for them.
    """
    if not values and not unset:
        raise InvalidInputError("no setting is named: SETTING=VALUE, or --unset SETTING")
    async with services.host() as host:
        fields = {each.path: each for each in (await host.configuration_form(name)).fields}
        patch: dict[str, Any] = {}
        for pair in values or []:
            path, equals, text = pair.partition("=")
            if not equals:
                raise InvalidInputError(f"'{pair}' is no SETTING=VALUE", field=path)
            field = fields.get(path)
            wanted = "string" if field is None else field.type
            items = {} if field is None else field.constraints.get("items", {})
            _put(patch, path, typed(text, wanted, items, path))
        for path in unset or []:
            _put(patch, path, None)
        told = await host.configure(name, patch, reason=reason)
    return Answer(told, lambda: _changed(told))


async def edit(name: Name, reason: Reason = None) -> Answer:
    """Change all that is set in your editor, as JSON. Somebody else's change meanwhile is a conflict."""
    import click

    async with services.host() as host:
        before = await host.configuration(name)
        text = click.edit(json.dumps(before.given, indent=2) + "\n", extension=".json")
        if text is None:
            return Answer(before, lambda: "Nothing was changed.")
        told = await host.configure(name, _object(text), reason=reason, whole=True, version=before.version)
    return Answer(told, lambda: _changed(told))


async def history(
    name: Name, limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 20
) -> Answer:
    """Show the versions of a plugin's configuration, newest first: who set it, when and why."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.configuration_history(name, limit=limit)
    rows = [(each.version, views.moment(each.at), each.author, each.reason) for each in page.items if each.at]
    columns = ("Version", "When", "Who", "Why")
    return Answer(page, lambda: views.table(columns, rows) if rows else "Nothing was ever set.")


async def diff(
    name: Name,
    before: Annotated[int, typer.Argument(min=0, help="A version; 0 is that nothing is set.")],
    after: Annotated[int | None, typer.Argument(min=0, help="Another; the newest when left out.")] = None,
) -> Answer:
    """Show how two versions of a plugin's configuration differ."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        newest = after if after is not None else (await host.configuration(name)).version
        told = await host.configuration_differences(name, before, newest)
    rows = [(each.path, _text(each.before), _text(each.after)) for each in told.changes]
    columns = ("Setting", f"Version {told.before}", f"Version {told.after}")
    return Answer(told, lambda: views.table(columns, rows) if rows else "They are the same.")


async def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(min=0, help="To go back to; 0 takes away all that is set.")],
    reason: Reason = None,
) -> Answer:
    """Go back to an old version of a plugin's configuration; that is a new version, equal to it."""
    async with services.host() as host:
        told = await host.roll_back_configuration(name, version, reason=reason)
    return Answer(told, lambda: _changed(told))


async def list_secrets(name: Name) -> Answer:
    """Show the secrets that a plugin asks for, and which are set. Nobody can show their values."""
    from wirthforge_sdk.cli import views

    async with services.host() as host:
        page = await host.secrets(name)
    rows = [
        (
            each.name,
            "no" if each.set_at is None else f"{views.moment(each.set_at)} by {each.set_by}",
            "no" if each.optional else "yes",
            each.standing,
            each.delivery,
            each.reason,
        )
        for each in page.items
    ]
    columns = ("Secret", "Set", "Required", "Permission", "Delivery", "Why")
    return Answer(page, lambda: views.table(columns, rows) if rows else f"{name} asks for no secret.")


async def set_secret(
    name: Name,
    secret: Secret,
    file: Annotated[Path | None, typer.Option(help="Read it from this file, all of it.")] = None,
) -> Answer:
    """Set a secret: it is asked for, or read from --file or from stdin, never from the command line.

    A newline at the end of stdin is left out. A plugin that waited for it starts.
    """
    value = _secret(file)
    async with services.host() as host:
        told = await host.set_secret(name, secret, value)
    return Answer(told, lambda: f"The secret {secret} is set.{_delivered(told.delivery)}")


async def remove_secret(name: Name, secret: Secret) -> Answer:
    """Forget a secret."""
    async with services.host() as host:
        told = await host.remove_secret(name, secret)
    return Answer(told, lambda: f"The secret {secret} is forgotten.{_delivered(told.delivery)}")


def typed(text: str, wanted: str, items: Mapping[str, Any], path: str) -> Any:
    """The value that ``text`` says, of a type of JSON Schema; ``items`` is the schema of a list's items.

    Raises:
        InvalidInputError: It says none of this type.
    """
    try:
        match wanted:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                return BOOLEANS[text.lower()]
            case "array" if text.lstrip().startswith("["):
                return json.loads(text)
            case "array":
                kind = items.get("type", "string")
                return [typed(each.strip(), kind, {}, path) for each in text.split(",") if each.strip()]
            case "object":
                return _object(text)
    except (ValueError, KeyError, RecursionError) as error:
        raise InvalidInputError(f"{path}: '{text[:60]}' is no {wanted}", field=path) from error
    return text


def _put(patch: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    inside = patch
    for group in groups:
        found = inside.setdefault(group, {})
        if not isinstance(found, dict):
            raise InvalidInputError(f"{path}: {group} is set as a whole, too: name it once", field=path)
        inside = found
    inside[last] = value


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"that is not JSON: {error}", field="values") from error
    if not isinstance(value, dict):
        raise InvalidInputError("that is no JSON object: write {…}", field="values")
    return value


def _secret(file: Path | None) -> str:
    try:
        if file is not None:
            with file.open(encoding="utf-8") as opened:
                return opened.read(MAX_SECRET)
        if can_ask():
            return str(typer.prompt("Secret", hide_input=True, err=True))
        return sys.stdin.read(MAX_SECRET).removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the secret cannot be read: {error}", field="file") from error


def _changed(told: ConfigurationOut) -> RenderableType:
    from rich.console import Group

    from wirthforge_sdk.contracts.text import clean

    first = f"{told.plugin} is at version {told.version} of its configuration."
    return Group(clean(first + (_delivered(told.delivery) if told.delivery else "")), *_remarks(told))


def _remarks(told: ConfigurationOut) -> list[str]:
    from wirthforge_sdk.contracts.text import clean

    return [clean(f"{each.path}: {each.problem}; {each.remedy}") for each in told.wrong]


def _delivered(delivery: DeliveryOut) -> str:
    from wirthforge_sdk.contracts.configuration_api import Outcome

    return {
        Outcome.APPLIED: " The plugin has it.",
        Outcome.FAILED: f" The plugin did not take it: {delivery.reason}",
        Outcome.NOT_RUNNING: " The plugin does not run.",
        Outcome.AT_NEXT_START: " The plugin has it at its next start: `wirthforge restart`.",
    }[delivery.outcome]


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
