"""What a plugin tree says about itself, as far as running it needs."""

from __future__ import annotations

import sys
import tomllib
from importlib import import_module
from typing import Any

from wirthforge_sdk.contracts.bridge import ROOTS
from wirthforge_sdk.runtime.plugin import Plugin
from wirthforge_sdk.runtime.session import About

SECRET = "secrets.read:"  # noqa: S105 - how a permission begins


class Project:
    """What a plugin tree says about itself; the host verified it, so only what is used is read.

    Raises:
        OSError: ``plugin.toml`` cannot be read.
        ValueError: It is not TOML, or does not say what to run.
    """

    def __init__(self, tree: str) -> None:
        with open(f"{tree}/plugin.toml", "rb") as file:  # noqa: PTH123 - pathlib is 5 ms of every cold start
            table = tomllib.load(file)
        try:
            runtime: dict[str, Any] = table["runtime"]
            self.type = str(runtime["type"])
            self.entry = str(runtime["entry"])
            self.interpreter = str(runtime.get("interpreter", "python"))
            self.arguments = [_placed(str(each), tree) for each in runtime.get("arguments", [])]
            self.environment = {
                str(name): _placed(str(text), tree) for name, text in runtime.get("environment", {}).items()
            }
            needs = [str(asked["need"]) for asked in table.get("permissions", [])]
            self.secrets = [need[len(SECRET) :] for need in needs if need.startswith(SECRET)]
            self.about = About(str(table["name"]), str(table["version"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"plugin.toml does not say what to run: {error} is missing or wrong") from error
        self.tree = tree
        self.path = [f"{tree}/{root}" for root in ROOTS]

    def load(self) -> Plugin:
        """Imports the entry of a Python plugin.

        Raises:
            Exception: Whatever its code raises; TypeError if the entry is no Plugin.
        """
        sys.path[:0] = self.path
        module, _, attribute = self.entry.partition(":")
        plugin = getattr(import_module(module), attribute)
        if not isinstance(plugin, Plugin):
            raise TypeError(f"{self.entry} is of type {type(plugin).__name__}: let it be a Plugin")
        return plugin


def _placed(text: str, tree: str) -> str:
    """With ``${PLUGIN}`` replaced by where the tree is: it is one place in a sandbox, another at a build."""
    return text.replace("${PLUGIN}", tree)
