"""The reference of all commands in Markdown, from the same declarations as their ``--help``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from typer.main import get_command

from wirthforge_sdk.cli.main import EPILOG, app

INTRODUCTION: Final = f"""\
# The command `wirthforge`

This page is made from the commands themselves by `make schemas`; edit their help, not this page.

Every command takes `--json`: stdout then has one JSON document and nothing else (`logs`: one a line), and an
error is its problem document (RFC 9457) on stderr. Mistakes in the command line itself are told in words.
Without a terminal nothing is asked and nothing is coloured.

{EPILOG} A function that says it failed, a sandbox that is not as asked and a doctor's finding are bad news.

| Variable | What it sets |
|---|---|
| `WIRTHFORGE_CONFIG_DIR` | directory of addresses, tokens and keys; `~/.config/wirthforge` by default |
| `WIRTHFORGE_HOST_URL` | the host; `http://127.0.0.1:7410` by default |
| `WIRTHFORGE_HOST_TOKEN_FILE` | file with the host's token, instead of the stored one |
| `WIRTHFORGE_MARKETPLACE_URL` | the marketplace; `http://127.0.0.1:7420` by default |
| `WIRTHFORGE_MARKETPLACE_TOKEN_FILE` | file with the marketplace's token, instead of the stored one |
| `WIRTHFORGE_KEY_PASSPHRASE_FILE` | file with the passphrase of signing keys, where nobody can type it |

A stored token is sent only to the address it was stored for, and never unencrypted to another machine.
Passphrases and tokens are never arguments: other users of the machine could read them.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_commands(get_command(app), "wirthforge")]).rstrip() + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield from _section(command, f"{path} {name}")


def _section(command: Any, path: str) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [
        each for each in command.params if each.param_type_name == "option" and "--json" not in each.opts
    ]
    usage = " ".join([path, *(_argument(each) for each in arguments), "[OPTIONS]"])
    yield f"## `{path}`\n\n{inspect.cleandoc(command.help)}\n\n```\n{usage}\n```\n"
    yield from (f"- `{_argument(each)}`: {each.help}" for each in arguments)
    yield from (f"- `{_option(each)}`: {each.help}{_default(each)}" for each in options)
    yield ""


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag:
        return names
    value = option.metavar or option.name.upper()
    if isinstance(option.default, Enum):
        value = "|".join(each.value for each in type(option.default))
    return f"{names} {value}{'…' if option.multiple else ''}"


def _default(option: Any) -> str:
    shown = option.show_default is not False and not option.is_flag and option.default not in (None, [], ())
    return f" Default: `{getattr(option.default, 'value', option.default)}`." if shown else ""
