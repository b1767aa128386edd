"""The application: every router of the admin API."""

from __future__ import annotations

from wirthforge_host.api import (
    approvals,
    audit,
    calls,
    configuration,
    containment,
    event_socket,
    events,
    functions,
    mcp,
    observation,
    permissions,
    plugins,
    policy,
    profiles,
    resources,
    storage,
    streaming,
    threats,
    tokens,
    upgrades,
)
from wirthforge_host.api.lifetime import EndsWithToken
from wirthforge_host.wiring import Wiring
from wirthforge_sdk.serving.application import Application
from wirthforge_sdk.serving.problems import declared

DESCRIPTION = """Runs plugins in locked-down containers, and mediates all they do.

Everything under `/v1` needs an operator's token. Every error is a problem document (RFC 9457); branch on its `code`.
"""


def create_app(wiring: Wiring) -> Application:
    """The admin API over ``wiring``, whose owner starts and closes it."""
    app = Application(title="WirthForge host", description=DESCRIPTION, unbound=[streaming.INPUT_PATH])
    app.state.wiring = wiring
    app.add_middleware(EndsWithToken)
    routers = (
        calls,  # first: asked for most, and looked for in this order
        plugins,
        upgrades,
        functions,
        configuration,
        containment,
        streaming,
        permissions,
        audit,
        events,
        observation,
        policy,
        profiles,
        resources,
        storage,
        threats,
        tokens,
        approvals,
        mcp,
    )
    for module in routers:
        app.include_router(module.router, responses=declared(401, 403, 404, 409, 413))
    app.include_router(event_socket.router)
    return app
