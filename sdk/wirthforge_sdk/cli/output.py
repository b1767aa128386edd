"""What the user sees: answers on stdout, talk on stderr, and an exit code by the kind of error.

With ``--json``, stdout has one JSON document (a stream: one a line) and nothing else, and an error is its
problem document (RFC 9457) on stderr. Without, stdout is for people. What others wrote (names, reasons, logs,
errors) is stripped of control characters before it reaches a terminal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Final, get_type_hints

import typer

from wirthforge_sdk.contracts.text import clean
from wirthforge_sdk.errors import KINDS, WirthForgeError

UNEXPECTED: Final = 1
"""Also of a command that ran and has bad news: a doctor's finding, a function that says it failed."""
EXIT_CODES: Final[dict[type[WirthForgeError], int]] = {kind: code for code, kind in enumerate(KINDS, start=2)}

PIPE_WIDTH: Final = 160
"""Columns where there is no terminal to ask."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found."""

    value: Any
    """As ``--json`` prints it: JSON, a contract's shape, or a list of these."""
    view: Callable[[], Any]
    """Makes what people see: a text or a rich renderable. Asked only when people look."""
    exit_code: int = 0


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """The command of a function that returns an :class:`Answer`, promises one, or yields several.

    Adds ``--json``, prints what comes, and ends with the exit code that fits. A parameter whose type is a dataclass
    stands for an option for each of its fields.
    """
    # Typer reads the parameters from here; evaluated, since they are written as texts in another module.
    signature = inspect.signature(function, eval_str=True)
    groups = {each.name: each.annotation for each in signature.parameters.values() if _is_group(each)}

    @functools.wraps(function)
    def run(*, as_json: bool, **given: Any) -> None:
        try:
            code = _told(function(**_grouped(given, groups)), as_json=as_json)
        except WirthForgeError as error:
            _fail(error, as_json=as_json)
            code = exit_code(error)
        raise typer.Exit(code)

    parameters = [*chain.from_iterable(map(_options, signature.parameters.values())), _AS_JSON]
    described: Any = run
    described.__signature__ = signature.replace(parameters=parameters, return_annotation=None)
    described.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


_AS_JSON: Final = inspect.Parameter(
    "as_json",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print JSON on stdout and nothing else; an error as its problem document on stderr.",
        ),
    ],
)


def _is_group(parameter: inspect.Parameter) -> bool:
    return dataclasses.is_dataclass(parameter.annotation)


def _options(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    if not _is_group(parameter):
        return [parameter]
    types = get_type_hints(parameter.annotation, include_extras=True)
    return [
        inspect.Parameter(each.name, parameter.kind, default=each.default, annotation=types[each.name])
        for each in dataclasses.fields(parameter.annotation)
    ]


def _grouped(given: dict[str, Any], groups: dict[str, Any]) -> dict[str, Any]:
    made = {
        name: group(**{each.name: given.pop(each.name) for each in dataclasses.fields(group)})
        for name, group in groups.items()
    }
    return given | made


def exit_code(error: WirthForgeError) -> int:
    """The exit code of ``error``: that of its kind."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), UNEXPECTED)


def can_ask() -> bool:
    """Whether somebody is there to answer a question."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> None:
    """Asks on stderr, and ends the program when the answer is no."""
    typer.confirm(question, abort=True, err=True)


def say(view: Any) -> None:
    """Shows something to the user that is no part of the answer."""
    _console(stderr=True).print(view)


@contextmanager
def working(on: str) -> Iterator[None]:
    """Shows that work goes on, when somebody watches."""
    if not sys.stderr.isatty():
        yield
        return
    with _console(stderr=True).status(clean(on)):
        yield


def _told(result: Any, *, as_json: bool) -> int:
    return asyncio.run(_printed(result, as_json=as_json))


async def _printed(result: Any, *, as_json: bool) -> int:
    if isinstance(result, AsyncIterator):
        worst = 0
        async for answer in result:
            _print(answer, as_json=as_json, indent=None)
            worst = max(worst, answer.exit_code)
        return worst
    answer = await result if isinstance(result, Awaitable) else result
    _print(answer, as_json=as_json, indent=2)
    return int(answer.exit_code)


def _print(answer: Answer, *, as_json: bool, indent: int | None) -> None:
    if as_json:
        typer.echo(json.dumps(as_data(answer.value), indent=indent))
    else:
        view = answer.view()
        # A plain text may hold a path or a digest, which somebody wants to copy in one piece.
        _console().print(view, soft_wrap=isinstance(view, str))


def _fail(error: WirthForgeError, *, as_json: bool) -> None:
    if as_json:
        from wirthforge_sdk.contracts.problem import problem_of  # noqa: PLC0415 (pydantic is slow to import)

        typer.echo(json.dumps(problem_of(error).model_dump(mode="json"), indent=2), err=True)
        return
    typer.secho("Error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(clean(error.message), err=True)
    problems = error.details.get("problems")
    if isinstance(problems, list) and len(problems) > 1:
        for problem in problems:
            typer.echo(f"  - {clean(str(problem))}", err=True)


def as_data(value: Any) -> Any:
    """``value`` as JSON knows it."""
    if isinstance(value, list | tuple):
        return [as_data(item) for item in value]
    if isinstance(value, dict):
        return {key: as_data(item) for key, item in value.items()}
    return value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console  # noqa: PLC0415 (slow to import, and --json needs none)

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, markup=False
    )
