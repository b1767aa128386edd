"""Opens the two services for a command, with the address and token that its user configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wirthforge_sdk.cli.settings import Service, Settings, load_settings
from wirthforge_sdk.errors import UnauthenticatedError

if TYPE_CHECKING:  # the clients bring httpx and pydantic, which `--help` shall not wait for
    from wirthforge_sdk.client import HostClient, MarketplaceClient


def host(settings: Settings | None = None) -> HostClient:
    """The host, as its operator.

    Raises:
        UnauthenticatedError: There is no token for it yet.
    """
    from wirthforge_sdk.client import HostClient  # noqa: PLC0415 (slow to import)

    service = (settings or load_settings()).host
    return HostClient(service.url, required_token(service))


def marketplace(settings: Settings | None = None, *, as_author: bool = False) -> MarketplaceClient:
    """The marketplace: as anybody, who may search and read, or ``as_author``.

    Raises:
        UnauthenticatedError: An author has no token for it yet.
    """
    from wirthforge_sdk.client import MarketplaceClient  # noqa: PLC0415 (slow to import)

    service = (settings or load_settings()).marketplace
    return MarketplaceClient(service.url, required_token(service) if as_author else None)


def required_token(service: Service) -> str:
    """The token of ``service``.

    Raises:
        UnauthenticatedError: There is none; says how to come by one.
    """
    token = service.token()
    if token is not None:
        return token
    remedy = {
        "host": f"run `wirthforge login --host {service.url} --token-file FILE` with the file in which "
        "the host left its first token",
        "marketplace": "run `wirthforge login --register NAME` for a new account, or "
        "`wirthforge login --token-stdin` for one you have",
    }[service.name]
    raise UnauthenticatedError(f"there is no token for the {service.name} at {service.url}: {remedy}")
