"""How answers look in a terminal. Imported only when one is looked at.

Everything that somebody else wrote goes through :func:`text`: no markup, no control characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from wirthforge_sdk.contracts.audit_api import AuditOut, VerificationOut
from wirthforge_sdk.contracts.host_api import (
    AskedPermission,
    CallOut,
    EffectiveOut,
    GradeOut,
    InstanceOut,
    LogOut,
    PluginOut,
    State,
)
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.marketplace_api import PluginDetail, PluginSummary, ReleaseOut
from wirthforge_sdk.contracts.permissions import Permission
from wirthforge_sdk.contracts.policy import HOUSE_POLICY, SecurityPolicy, limits_for
from wirthforge_sdk.contracts.resources import MIB, Limits
from wirthforge_sdk.contracts.text import clean, one_line

_CALM = {State.RUNNING: "green", State.STOPPED: "dim", State.AWAITING_APPROVAL: "yellow"}
_PASSING = {State.FETCHING, State.VERIFYING, State.STARTING, State.DRAINING}
_LEVELS = {"debug": "dim", "warning": "yellow", "error": "red"}
_OUTCOMES = {"allowed": "green", "denied": "yellow", "failed": "red"}


def text(value: object, style: str = "") -> Text:
    """``value`` as it may safely be shown."""
    return Text(clean(str(value)), style=style)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table in the house's style; a cell that is a ``Text`` keeps its colours."""
    grid = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return grid


def facts(rows: Iterable[tuple[str, object]]) -> Table:
    """Labels and values, one pair a line; pairs without a value are left out."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        if value not in (None, "", []):
            grid.add_row(label, value if isinstance(value, Text) else text(value))
    return grid


def titled(title: str, body: RenderableType) -> Group:
    """A part of a page."""
    return Group(Text(), Text(title, style="bold"), Padding(body, (0, 0, 0, 2), expand=False))


def moment(at: datetime) -> str:
    """A time as people read it, in their own zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def state(value: State) -> Text:
    """A state in its colour."""
    return text(value.value.replace("_", " "), _CALM.get(value, "cyan" if value in _PASSING else "red"))


def found(plugins: Sequence[PluginSummary], more: bool) -> RenderableType:  # noqa: FBT001 (one caller)
    """What a search found."""
    if not plugins:
        return Text("Nothing found.", style="dim")
    rows = [(text(each.name, "bold"), each.latest, each.kind, each.summary) for each in plugins]
    listing = table(("Plugin", "Latest", "Kind", "Summary"), rows)
    return Group(listing, Text("More was found: narrow the search.", style="dim")) if more else listing


def detail(plugin: PluginDetail, release: ReleaseOut) -> RenderableType:
    """A plugin and one of its releases, as the marketplace tells them."""
    manifest = release.manifest
    head = facts(
        [
            ("Version", f"{release.version} of {moment(release.published_at)}"),
            ("Kind", manifest.kind.value),
            ("License", manifest.license),
            ("Authors", ", ".join(manifest.authors)),
            ("Homepage", manifest.homepage),
            ("Owner", plugin.owner),
            ("Digest", release.digest),
            ("Signed by", release.keyid),
            ("Size", size(release.size)),
            ("Limits", limits(limits_for(manifest, HOUSE_POLICY))),
            ("Depends on", ", ".join(f"{name} {range_}" for name, range_ in manifest.dependencies.items())),
            ("Versions", ", ".join(each.version for each in plugin.releases[:10])),
        ]
    )
    asked = [
        AskedPermission(
            need=each.need,
            meaning=Permission.parse(each.need).meaning,
            reason=each.reason,
            optional=each.optional,
            standing="",
        )
        for each in manifest.permissions
    ]
    return Group(
        text(plugin.name, "bold"),
        text(manifest.summary),
        Text(),
        head,
        titled("Permissions", sheet(asked)),
        titled("Functions", functions(release.functions)),
    )


def sheet(asked: Sequence[AskedPermission]) -> RenderableType:
    """What a plugin asks for, in plain words, with its author's reasons."""
    if not asked:
        return Text("It asks for nothing.", style="dim")
    lines: list[Text] = []
    for each in asked:
        standing = Text.assemble("  ", _standing(each.standing)) if each.standing else Text()
        optional = Text("  optional", style="dim") if each.optional else Text()
        lines += [
            Text.assemble("may ", text(each.meaning, "bold"), optional, standing),
            Text.assemble("  ", text(each.need, "cyan"), ", because: ", text(each.reason)),
        ]
    return Group(*lines)


def functions(offered: Sequence[Function]) -> RenderableType:
    """What can be called."""
    if not offered:
        return Text("It tells them once it runs.", style="dim")
    rows = [
        (text(each.name, "bold"), _signature(each), each.description.partition("\n")[0]) for each in offered
    ]
    return table(("Function", "Arguments", "Description"), rows)


def offered(one: PluginOut) -> RenderableType:
    """The functions of a plugin, and what of them is quarantined."""
    parts: list[RenderableType] = [titled("Functions", functions(one.functions))]
    if one.quarantined:
        rows = [
            (text(each.name, "bold"), "; ".join(each.differences), each.fingerprint[:19])
            for each in one.quarantined
        ]
        parts += [titled("Quarantined", table(("Function", "Difference", "As it is now"), rows))]
        parts += [
            Text(f"Look, and decide with: wirthforge functions approve {one.name} FUNCTION", style="cyan")
        ]
    return Group(*parts)


def installed(plugins: Sequence[PluginOut]) -> RenderableType:
    """What is on the host."""
    if not plugins:
        return Text("Nothing is installed. Look around with `wirthforge search`.", style="dim")
    rows = [(text(each.name, "bold"), each.version, state(each.state), _cause(each)) for each in plugins]
    return table(("Plugin", "Version", "State", "Cause"), rows)


def _cause(one: PluginOut) -> str:
    repairs = sum(each.repairs for each in one.instances)
    return f"{one.cause}; crashed and repaired {repairs} times" if repairs else one.cause


def plugin(one: PluginOut) -> RenderableType:
    """One plugin on the host."""
    instance = one.instance
    head = facts(
        [
            ("Version", one.version),
            ("State", state(one.state)),
            ("Cause", one.cause),
            ("Since", moment(one.changed_at)),
            ("Enabled", "yes" if one.enabled else "no"),
            ("Digest", one.digest),
            ("Signed by", one.signer),
            ("Limits", limits(one.limits)),
            ("Protocol", instance.protocol if instance else None),
        ]
    )
    return Group(
        text(one.name, "bold"),
        text(one.summary),
        Text(),
        head,
        titled(f"Instances: {number(one)}", instances(one.instances)),
        titled("Permissions", sheet(one.permissions)),
        offered(one),
    )


def number(one: PluginOut) -> str:
    """How many instances run of how many that are to, and why."""
    scale = one.scale
    told = f"{len(one.instances)} of {scale.now}"
    if scale.least == scale.most:
        return told
    return f"{told}, {scale.least}..{scale.most} by the load" + (f" ({scale.reason})" if scale.reason else "")


def instances(running: Sequence[InstanceOut]) -> RenderableType:
    """The sandboxes of a plugin."""
    if not running:
        return Text("None runs.", style="dim")
    rows = [
        (
            each.id,
            Text("asleep", style="dim") if each.asleep else state(each.state),
            each.calls,
            each.repairs,
            each.container[:12],
            f"user {each.uid}",
            moment(each.started_at),
        )
        for each in running
    ]
    return table(("Instance", "State", "Calls inside", "Repairs", "Container", "Runs as", "Started"), rows)


def scaled(one: PluginOut) -> RenderableType:
    """A plugin that is to have another number of instances."""
    line = text(f"Instances: {number(one)}.")
    return Group(changed(one), line)


def changed(one: PluginOut) -> RenderableType:
    """A plugin after something was done to it."""
    line = Text.assemble(text(one.name, "bold"), " ", text(one.version), " is ", state(one.state))
    if one.state is State.AWAITING_APPROVAL:
        undecided = [each for each in one.permissions if each.standing != "granted" and not each.optional]
        hint = Text.assemble("Decide with: ", Text(f"wirthforge approve {one.name}", style="cyan"))
        return Group(line, titled("It needs", sheet(undecided)), Text(), hint)
    return line if one.state is State.RUNNING else Text.assemble(line, ": ", text(one.cause))


def answer(result: CallOut) -> RenderableType:
    """What a function answered."""
    if result.structured is not None and not result.is_error:
        return text(json.dumps(result.structured, indent=2, ensure_ascii=False))
    parts = [text(_content(part), "red" if result.is_error else "") for part in result.content]
    return Group(*parts) if parts else Text("It answered nothing.", style="dim")


def effective(one: EffectiveOut) -> RenderableType:
    """The sandbox as the engine and the kernel report it."""
    recorded = facts((name, _shown(value)) for name, value in sorted(one.settings.items()))
    kernel = (
        Text("Not visible from where the host runs.", style="yellow")
        if one.kernel is None
        else facts((name, _shown(value)) for name, value in sorted(one.kernel.items()))
    )
    settings = Group(
        text(f"Started {one.start}: {one.start_reason}."),
        recorded,
        titled("By the kernel's own files", kernel),
        titled(f"Grade {one.grade.points} of 100", _grade(one.grade)),
    )
    if one.mismatches:
        found_wrong = Group(*(text(f"- {each}", "red") for each in one.mismatches))
        return Group(settings, titled("Differs from what was asked", found_wrong))
    return Group(settings, Text(), Text("All of it is what was asked for.", style="green"))


def policy(one: SecurityPolicy, *, everything: bool) -> RenderableType:
    """The rules of a policy; those that differ from the house's own stand out, and can be shown alone."""
    house = dict(_rules(HOUSE_POLICY.model_dump(mode="json")))
    rules = [(name, value, house.get(name) != value) for name, value in _rules(one.model_dump(mode="json"))]
    rows = [
        (text(name, "bold" if changed else "dim"), text(_shown(value), "bold" if changed else ""))
        for name, value, changed in rules
        if everything or changed
    ]
    return table(("Rule", "Value"), rows) if rows else Text("It changes no rule of the house's own policy.")


def _grade(one: GradeOut) -> Table:
    rows = [
        (
            each.name,
            text(
                f"{each.points} of {each.of}",
                "green" if each.points == each.of else "yellow" if each.points else "dim",
            ),
            each.reason,
        )
        for each in one.lines
    ]
    return table(("What", "Points", "Because"), rows)


def log_line(line: LogOut) -> RenderableType:
    """One line of a log."""
    level = text(f"{one_line(line.level):<7}", _LEVELS.get(line.level, "cyan"))
    fields = text(f" {_pairs(line.fields)}" if line.fields else "", "dim")
    # The body has a column of its own: wherever it is wrapped, no part of it can pass for another record.
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(
        Text.assemble(text(moment(line.at), "dim"), " ", level), Text.assemble(text(line.message), fields)
    )
    return grid


def audit(records: Sequence[AuditOut]) -> RenderableType:
    """Records of the audit log, the newest last."""
    if not records:
        return Text("There is no such record.", style="dim")
    rows = [
        (
            text(moment(each.at), "dim"),
            each.actor,
            each.action,
            text(each.outcome, _OUTCOMES.get(each.outcome, "")),
            each.plugin or "",
            _pairs(each.detail),
        )
        for each in reversed(records)
    ]
    return table(("At", "Who", "What", "Outcome", "Plugin", "Detail"), rows)


def verification(found: VerificationOut) -> RenderableType:
    """Whether the audit log is whole."""
    if found.problem is None:
        return Text(
            f"Whole: {found.entries:,} records, {found.checkpoints:,} signed checkpoints.", style="green"
        )
    held = f"The {found.entries:,} before it hold." if found.entries else "None before it holds."
    return Text.assemble((f"Not whole: {clean(found.problem)}. ", "bold red"), held)


def size(number: int) -> str:
    """Bytes as people read them."""
    return f"{number / MIB:.1f} MiB" if number >= MIB else f"{number / 1024:.1f} KiB"


def limits(of: Limits) -> str:
    """Limits in one line."""
    return (
        f"{of.cpus:g} cores, {of.memory_bytes // MIB} MiB memory, {of.pids} processes, "
        f"{of.storage_bytes // MIB} MiB stored"
    )


def _rules(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _rules(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _standing(standing: str) -> Text:
    return text(standing, {"granted": "green", "denied": "red"}.get(standing, "yellow"))


def _signature(function: Function) -> str:
    properties = function.input_schema.get("properties")
    required = function.input_schema.get("required", [])
    if not isinstance(properties, dict):
        return ""
    return ", ".join(name if name in required else f"[{name}]" for name in properties)


def _content(part: dict[str, Any]) -> str:
    return str(part["text"]) if part.get("type") == "text" and "text" in part else _shown(part)


def _pairs(fields: Mapping[str, object]) -> str:
    return " ".join(f"{one_line(key)}={one_line(_shown(value))}" for key, value in fields.items())


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
