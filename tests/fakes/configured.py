"""A plugin that an operator sets things for, and that does with them what a test asks."""

from __future__ import annotations

from functools import cache
from typing import Any

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered
from wirthforge_sdk.contracts.manifest import Function

NEEDS = ("config.read", "secrets.read:api_key")

SOURCE = """
import base64
import os
import threading
from typing import Any
from urllib.parse import quote
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
heard: list[Any] = []


@plugin.on_config_change
def changed(values: dict) -> None:
    if values["city"] == "Atlantis":
        raise ValueError("no weather under water")
    if values["city"] == "Nowhere":
        threading.Event().wait(9)
    heard.append(values)


@plugin.on_secret_change
def renewed(names: list) -> None:
    heard.append(names)


@plugin.function
def config() -> dict:
    "What is set now."
    return plugin.config.all()


@plugin.function
def secret(name: str = "api_key") -> dict:
    "A secret, as its caller could never have it of the host."
    return {"value": plugin.secrets.get(name)}


@plugin.function
def told() -> list:
    "The changes it heard of."
    return heard


@plugin.function
def fail(before: str = "", after: str = "") -> str:
    "Fails as careless code does: with a secret in its traceback, its log and its error."
    key = plugin.secrets["api_key"]
    print(f"asking with {before}{key}{after}")
    plugin.log.warning(f"key {key}", headers={"authorization": f"Bearer {before}{key}"}, key=key)
    raise RuntimeError(f"the server refused {before}{key}{after}")


@plugin.function
def coded() -> str:
    "Fails with a secret in other writings."
    key = plugin.secrets["api_key"].encode()
    basic = base64.b64encode(b"user:" + key).decode()
    plugin.log.info(key.hex(), authorization=f"Basic {basic}")
    raise RuntimeError(f"{key.hex()} {basic} {quote(key, safe='')}")


@plugin.function
def end() -> bool:
    "Ends the process with a secret in its last words."
    plugin.log.error(f"cannot go on with {plugin.secrets['api_key']}")
    os._exit(1)
"""

SCHEMA = """
[configuration]
required = ["city"]
[configuration.properties.city]
type = "string"
title = "City"
description = "Whose weather to tell."
[configuration.properties.limits]
type = "object"
title = "Limits"
[configuration.properties.limits.properties]
per_day = { type = "integer", minimum = 1, default = 5 }
hosts = { type = "array", items = { type = "string" } }
"""


@cache
def functions() -> list[Function]:
    """Of :data:`SOURCE`."""
    return offered(SOURCE)


def configured(**more: Any) -> bytes:
    """A package of :data:`SOURCE`, which needs a city and a key."""
    return make_package(
        PLUGIN,
        **{"source": SOURCE, "functions": functions(), "permissions": NEEDS, "extra": SCHEMA, **more},
    )
