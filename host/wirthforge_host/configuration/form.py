"""A configuration's schema as a form: what a console shows, in the author's order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wirthforge_sdk.contracts.configuration import Configuration, Setting, ValueKind, Values, completed
from wirthforge_sdk.contracts.configuration_api import FieldOut

_TOLD_APART = frozenset({"type", "title", "description", "default"})


def fields_of(schema: Configuration | None, given: Values) -> list[FieldOut]:
    """Every field, of what is set now; objects are opened, and name the groups of their fields."""
    if schema is None:
        return []
    return list(_fields(schema, completed(schema, given), given, "", []))


def _fields(
    setting: Setting, current: Mapping[str, Any], given: Mapping[str, Any], path: str, group: list[str]
) -> Iterator[FieldOut]:
    required = frozenset(setting.required or ())
    for name, each in (setting.properties or {}).items():
        at, label = f"{path}.{name}".removeprefix("."), each.title or name.replace("_", " ").capitalize()
        if each.type is ValueKind.OBJECT:
            yield from _fields(each, _inside(current, name), _inside(given, name), at, [*group, label])
            continue
        schema = each.schema_of()
        yield FieldOut(
            path=at,
            label=label,
            group=group,
            help=each.description or "",
            type=each.type.value,
            required=name in required,
            default=each.default,
            current=current.get(name),
            is_set=name in given,
            constraints={key: value for key, value in schema.items() if key not in _TOLD_APART},
        )


def _inside(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = values.get(name)
    return inner if isinstance(inner, Mapping) else {}
