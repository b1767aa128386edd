"""The application: every router of the marketplace."""

from __future__ import annotations

from wirthforge_marketplace.api import accounts, keys, packages, plugins, service
from wirthforge_marketplace.errors import PackageTooLargeError
from wirthforge_marketplace.wiring import Wiring
from wirthforge_sdk.serving.application import Application

DESCRIPTION = """The catalogue that authors publish signed packages to and hosts install from.

Reading needs no token. Every error is a problem document (RFC 9457); branch on its `code`.
"""


def create_app(wiring: Wiring) -> Application:
    """The HTTP API over ``wiring``, whose owner starts and closes it."""
    app = Application(
        title="WirthForge marketplace",
        description=DESCRIPTION,
        exact={PackageTooLargeError: 413},
        unbound={packages.PUBLISH_PATH},
    )
    app.state.wiring = wiring
    for module in (service, accounts, keys, packages, plugins):
        app.include_router(module.router)
    return app
