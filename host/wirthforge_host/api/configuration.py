"""Configuration and secrets over HTTP. Secrets go in, and never out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from wirthforge_host.api.security import Keeper, Reader, Wired
from wirthforge_sdk.contracts.configuration_api import (
    SECRET_NAME,
    ConfigurationIn,
    ConfigurationOut,
    DifferencesOut,
    FormOut,
    RollbackIn,
    SecretIn,
    SecretOut,
    SecretSetOut,
    VersionNumber,
    VersionOut,
)
from wirthforge_sdk.contracts.identifiers import Slug
from wirthforge_sdk.contracts.wire import DEFAULT_PAGE, Limit, Page

router = APIRouter(prefix="/v1/plugins/{namespace}/{name}", tags=["configuration"])

SecretName = Annotated[str, Path(pattern=SECRET_NAME)]
IfMatch = Annotated[
    str | None,
    Header(
        pattern=r'^"[0-9]{1,9}"$', description="The ETag that was looked at; another one now is a conflict."
    ),
]


def _name(namespace: Slug, name: Slug) -> str:
    return f"{namespace}/{name}"


Plugin = Annotated[str, Depends(_name)]


def _tagged(response: Response, told: ConfigurationOut) -> ConfigurationOut:
    response.headers["ETag"] = f'"{told.version}"'
    return told


def _expected(if_match: str | None) -> int | None:
    return None if if_match is None else int(if_match.strip('"'))


@router.get("/configuration")
async def configuration(_: Reader, plugin: Plugin, wiring: Wired, response: Response) -> ConfigurationOut:
    """What is set for a plugin, what is in force, and what is still missing."""
    return _tagged(response, await wiring.provisioning.configuration(plugin))


@router.put("/configuration")
async def replace_configuration(
    operator: Keeper,
    plugin: Plugin,
    wiring: Wired,
    response: Response,
    body: ConfigurationIn,
    if_match: IfMatch = None,
) -> ConfigurationOut:
    """Sets these values and no others, as a new version, and tells the plugin if it runs."""
    made = await wiring.provisioning.replace(plugin, body, operator, expected=_expected(if_match))
    return _tagged(response, made)


@router.patch("/configuration")
async def merge_configuration(
    operator: Keeper,
    plugin: Plugin,
    wiring: Wired,
    response: Response,
    body: ConfigurationIn,
    if_match: IfMatch = None,
) -> ConfigurationOut:
    """Puts these values into those that are set (RFC 7396: null takes one away), as a new version."""
    made = await wiring.provisioning.merge(plugin, body, operator, expected=_expected(if_match))
    return _tagged(response, made)


@router.get("/configuration/form")
async def configuration_form(_: Reader, plugin: Plugin, wiring: Wired) -> FormOut:
    """The configuration as a form: ordered fields, each with its label, help, default, value and bounds."""
    return await wiring.provisioning.form(plugin)


@router.get("/configuration/history")
async def configuration_history(
    _: Reader,
    plugin: Plugin,
    wiring: Wired,
    after: Annotated[VersionNumber | None, Query(description="Version to continue below.")] = None,
    limit: Annotated[Limit, Query()] = DEFAULT_PAGE,
) -> Page[VersionOut]:
    """Every version that is kept, newest first: what was set, by whom, when and why."""
    items = await wiring.provisioning.history(plugin, before=after, limit=limit)
    return Page(items=items, next=str(items[-1].version) if len(items) == limit else None)


@router.get("/configuration/diff")
async def configuration_differences(
    _: Reader,
    plugin: Plugin,
    wiring: Wired,
    before: Annotated[VersionNumber, Query()],
    after: Annotated[VersionNumber, Query()],
) -> DifferencesOut:
    """How two versions differ in what was set."""
    return await wiring.provisioning.differences(plugin, before, after)


@router.post("/configuration/rollback")
async def roll_back_configuration(
    operator: Keeper,
    plugin: Plugin,
    wiring: Wired,
    response: Response,
    body: RollbackIn,
    if_match: IfMatch = None,
) -> ConfigurationOut:
    """Makes a new version that is equal to an old one."""
    made = await wiring.provisioning.roll_back(plugin, body, operator, expected=_expected(if_match))
    return _tagged(response, made)


@router.get("/secrets")
async def secrets(_: Reader, plugin: Plugin, wiring: Wired) -> Page[SecretOut]:
    """The secrets that a plugin asks for, and whether, when and by whom each was set. Never their values."""
    return Page(items=await wiring.provisioning.kept(plugin), next=None)


@router.put("/secrets/{secret}")
async def set_secret(
    operator: Keeper, plugin: Plugin, secret: SecretName, wiring: Wired, body: SecretIn
) -> SecretSetOut:
    """Sets a secret in the place of what was there. It can never be read back."""
    return await wiring.provisioning.set_secret(plugin, secret, body.value, operator)


@router.delete("/secrets/{secret}")
async def remove_secret(operator: Keeper, plugin: Plugin, secret: SecretName, wiring: Wired) -> SecretSetOut:
    """Forgets a secret."""
    return await wiring.provisioning.remove_secret(plugin, secret, operator)
