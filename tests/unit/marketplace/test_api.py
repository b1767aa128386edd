"""What holds for the whole API: problem documents, bounds, and its own description."""

import json

import pytest
from jsonschema import Draft202012Validator

from wirthforge_sdk.contracts.problem import CONTENT_TYPE, Problem
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES


def problem(answer):
    assert answer.headers["content-type"] == CONTENT_TYPE
    told = Problem.model_validate(answer.json())
    assert told.status == answer.status_code
    return told


@pytest.mark.requirement("MKT-13")
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/plugins/demo", 404, "not_found"),
        ("PUT", "/v1/plugins", 405, "invalid_input"),
        ("GET", "/v1/plugins/DEMO/hello", 422, "invalid_input"),
        ("GET", "/v1/plugins/demo--x/hello", 404, "plugin_missing"),
        ("GET", "/v1/keys/short", 422, "invalid_input"),
    ],
)
async def test_every_error_is_a_problem_document(marketplace, method, path, status, code):
    told = problem(await marketplace.client.request(method, path))
    assert (told.status, told.code) == (status, code)


async def test_a_wrong_method_is_told_the_right_ones(marketplace):
    answer = await marketplace.client.put("/v1/info")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[]", b'"x"', b"\xff\xfe", b'{"name": "\xff"}', b'{"name": 1}', b"null", b"[" * 100_000],
    ids=["torn", "empty", "list", "text", "binary", "utf8", "number", "null", "deep"],
)
async def test_a_body_that_is_no_account_is_refused(marketplace, body):
    answer = await marketplace.client.post(
        "/v1/accounts", content=body, headers={"Content-Type": "application/json"}
    )
    assert (problem(answer).status, problem(answer).kind) == (422, "invalid_input")


async def test_an_unknown_key_of_a_body_is_named(marketplace):
    answer = await marketplace.client.post("/v1/accounts", json={"name": "demo", "admin": True})
    assert answer.status_code == 422
    assert "body.admin: unknown key" in problem(answer).detail
    assert (await marketplace.client.post("/v1/accounts", json={"name": "demo"})).status_code == 201


async def test_a_refusal_does_not_repeat_what_was_sent(marketplace):
    answer = await marketplace.client.post("/v1/accounts", json={"name": "Hunter2!"})
    assert answer.status_code == 422
    assert "Hunter2!" not in answer.text


@pytest.mark.parametrize("declares", [True, False])
async def test_a_body_over_the_bound_is_refused(marketplace, declares):
    async def body():
        yield b" " * MAX_BODY_BYTES
        yield b"  "

    content = b" " * (MAX_BODY_BYTES + 1) if declares else body()
    answer = await marketplace.client.post(
        "/v1/accounts", content=content, headers={"Content-Type": "application/json"}
    )
    assert (problem(answer).status, problem(answer).code) == (413, "body_too_large")


async def test_a_fault_tells_a_stranger_nothing(marketplace, monkeypatch):
    async def broken(_name):
        raise RuntimeError("the secret is hunter2")

    monkeypatch.setattr(type(marketplace.wiring.catalog), "plugin", lambda _self, name: broken(name))
    answer = await marketplace.client.get("/v1/plugins/demo/hello")
    assert (problem(answer).status, problem(answer).code) == (500, "internal_error")
    assert "hunter2" not in answer.text


async def test_a_server_is_healthy_ready_and_says_what_it_is(marketplace):
    assert (await marketplace.client.get("/healthz")).json() == {"status": "ok"}
    assert (await marketplace.client.get("/readyz")).json() == {"status": "ok"}
    info = (await marketplace.client.get("/v1/info")).json()
    assert info["max_package_bytes"] == marketplace.wiring.settings.max_package_bytes


async def test_a_server_that_cannot_write_packages_is_not_ready(marketplace):
    (marketplace.wiring.settings.data_dir / "packages/incoming").rmdir()
    assert problem(await marketplace.client.get("/readyz")).status == 503
    assert (await marketplace.client.get("/healthz")).status_code == 200


async def test_the_api_describes_itself_as_openapi_31(marketplace):
    document = (await marketplace.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    references = set(_references(document))
    assert "#/components/schemas/Problem" in references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert "HTTPValidationError" not in schemas


async def test_every_operation_has_a_stable_id_a_text_and_problems_for_its_errors(marketplace):
    document = (await marketplace.client.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert sorted(ids) == sorted(set(ids))
    assert set(ids) == {
        "claim_namespace",
        "describe_package",
        "download_package",
        "get_key",
        "get_plugin",
        "get_release",
        "health",
        "info",
        "issue_token",
        "list_plugins",
        "own_account",
        "own_keys",
        "own_tokens",
        "publish_release",
        "readiness",
        "register_account",
        "register_key",
        "resolve_requirements",
        "revoke_key",
        "revoke_token",
    }
    for operation in operations:
        assert operation["description"]
        for status, answer in operation["responses"].items():
            if status >= "4":
                assert list(answer["content"]) == [CONTENT_TYPE], (operation["operationId"], status)


async def test_every_json_body_has_an_example_that_its_schema_accepts(marketplace):
    document = (await marketplace.client.get("/openapi.json")).json()
    seen = 0
    for path in document["paths"].values():
        for operation in path.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is None:
                continue
            schema = json.loads(json.dumps(body["schema"]))
            (example,) = schema.get("examples") or body.get("examples")
            Draft202012Validator({**schema, "components": document["components"]}).validate(example)
            seen += 1
    assert seen == 5


def _references(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "$ref":
                yield inner
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
