"""Every operation that changes something, against everybody who may not."""

import pytest

from tests.fakes.marketplace import bearer, key_body
from tests.fakes.packages import make_package
from wirthforge_sdk.contracts.wire import new_token
from wirthforge_sdk.packaging.keys import SigningKey

PUBLIC = {("post", "/v1/accounts"), ("post", "/v1/resolve")}
"""Registering is open, and resolving changes nothing."""

GUARDED = {
    ("post", "/v1/tokens"): "account",
    ("delete", "/v1/tokens/{token_id}"): "account",
    ("post", "/v1/namespaces"): "account",
    ("post", "/v1/keys"): "account",
    ("delete", "/v1/keys/{keyid}"): "account",
    ("post", "/v1/releases"): "publish",
}
READING_OWN = {("get", "/v1/accounts/me"), ("get", "/v1/tokens"), ("get", "/v1/keys")}


async def send(market, operation, demo, headers):
    """The request that ``demo``, with the right token, would be served."""
    method, path = operation
    token_id = (await market.client.get("/v1/tokens", headers=demo.headers)).json()["items"][0]["id"]
    path = path.replace("{token_id}", token_id).replace("{keyid}", demo.key.public.keyid)
    bodies = {
        "/v1/tokens": {"label": "job", "scopes": ["publish"]},
        "/v1/namespaces": {"name": "fresh"},
        "/v1/keys": key_body(demo.name, SigningKey.generate()),
    }
    body = {"json": bodies[path]} if method == "post" and path in bodies else {}
    if path == "/v1/releases":
        body = {"content": make_package("demo/hello", key=demo.key)}
    return await market.client.request(method, path, headers=headers, **body)


async def token_of(demo, scope):
    return bearer((await demo.post("/v1/tokens", {"label": scope, "scopes": [scope]})).json()["secret"])


async def test_the_tables_here_name_every_operation_that_needs_or_changes_something(marketplace):
    document = (await marketplace.client.get("/openapi.json")).json()
    changing = {
        (method, path)
        for path, operations in document["paths"].items()
        for method in operations
        if method not in {"get", "head"}
    }
    assert changing == PUBLIC | GUARDED.keys()
    guarded = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "401" in operation["responses"] and (method, path) not in PUBLIC
    }
    assert guarded == GUARDED.keys() | READING_OWN


@pytest.mark.parametrize("operation", sorted(GUARDED.keys() | READING_OWN), ids=" ".join)
async def test_who_is_not_known_is_refused(marketplace, operation):
    demo = await marketplace.publisher()
    expiring = (
        await demo.post("/v1/tokens", {"label": "x", "scopes": ["account"], "expires_in_s": 60})
    ).json()
    host_token = bearer(new_token("h"))
    for headers in ({}, host_token, bearer(new_token("m")), {"Authorization": demo.token}):
        answer = await send(marketplace, operation, demo, headers)
        assert (answer.status_code, answer.json()["kind"]) == (401, "unauthenticated")
    marketplace.clock.advance(60)
    answer = await send(marketplace, operation, demo, bearer(expiring["secret"]))
    assert answer.json()["code"] == "token_expired"


@pytest.mark.parametrize("operation", sorted(GUARDED), ids=" ".join)
async def test_a_token_without_the_scope_is_refused_and_one_with_it_is_served(marketplace, operation):
    demo = await marketplace.publisher()
    needed = GUARDED[operation]
    wrong = await token_of(demo, "publish" if needed == "account" else "account")
    answer = await send(marketplace, operation, demo, wrong)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")
    assert answer.json()["details"] == {"scope": needed}
    right = demo.headers if operation == ("post", "/v1/tokens") else await token_of(demo, needed)
    assert (await send(marketplace, operation, demo, right)).is_success


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (("delete", "/v1/tokens/{token_id}"), "token_missing"),
        (("delete", "/v1/keys/{keyid}"), "permission_denied"),
        (("post", "/v1/keys"), "signature_invalid"),
        (("post", "/v1/releases"), "signature_invalid"),
    ],
    ids=str,
)
async def test_another_account_cannot_act_on_what_is_not_its_own(marketplace, operation, code):
    demo, other = await marketplace.publisher("demo"), await marketplace.publisher("other")
    answer = await send(marketplace, operation, demo, other.headers)
    assert answer.json()["code"] == code
