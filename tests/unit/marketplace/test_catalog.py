"""Lists, search, one plugin, and what to install."""

import asyncio

import pytest

from wirthforge_marketplace.catalog import service


async def names(market, **query):
    answer = await market.client.get("/v1/plugins", params=query)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


@pytest.mark.requirement("MKT-1")
async def test_every_word_of_a_search_must_be_in_name_summary_or_categories(marketplace):
    demo = await marketplace.publisher()
    await demo.release("demo/weather", summary="Forecasts for TOMORROW", categories=["data", "sky"])
    await demo.release("demo/tides", summary="When the sea comes", categories=["data"])
    assert await names(marketplace) == ["demo/tides", "demo/weather"]
    assert await names(marketplace, q="WEATHER") == ["demo/weather"]
    assert await names(marketplace, q="tomorrow  fore") == ["demo/weather"]
    assert await names(marketplace, q="data") == ["demo/tides", "demo/weather"]
    assert await names(marketplace, q="weather tides") == []


async def test_a_search_in_another_script_ignores_case_too(marketplace):
    demo = await marketplace.publisher()
    await demo.release("demo/greek", summary="ΚΑΛΗΜΈΡΑ Straße")
    assert await names(marketplace, q="καλημέρα STRASSE") == ["demo/greek"]


@pytest.mark.parametrize("q", ["%", "_", "/", "\\", "'", '"', "'; DROP TABLE plugins; --", "/%", "a%b"])
async def test_a_search_means_its_characters_and_nothing_more(marketplace, q):
    demo = await marketplace.publisher()
    await demo.release("demo/plain", summary="Nothing special")
    found = ["demo/plain"] if q == "/" else []
    assert await names(marketplace, q=q) == found
    assert await names(marketplace) == ["demo/plain"]


@pytest.mark.requirement("MKT-1")
async def test_a_category_is_matched_whole(marketplace):
    demo = await marketplace.publisher()
    await demo.release("demo/one", categories=["data-science"])
    await demo.release("demo/two", categories=["data", "science"])
    assert await names(marketplace, category="data") == ["demo/two"]
    assert await names(marketplace, category="data-science") == ["demo/one"]


async def test_a_namespace_is_matched_whole(marketplace):
    for name in ("demo", "demo2"):
        publisher = await marketplace.publisher(name)
        await publisher.release(f"{name}/hello")
    assert await names(marketplace, namespace="demo") == ["demo/hello"]


async def test_names_sort_by_their_bytes_on_every_database(marketplace):
    demo = await marketplace.publisher()
    given = ["demo/a-b", "demo/ab", "demo/a", "demo/a1", "demo/b"]
    for name in given:
        await demo.release(name)
    assert await names(marketplace) == sorted(given)


@pytest.mark.requirement("MKT-13")
async def test_pages_hold_their_place_while_plugins_come_in_between(marketplace):
    demo = await marketplace.publisher()
    for name in ("b", "d", "f", "h"):
        await demo.release(f"demo/{name}")
    first = (await marketplace.client.get("/v1/plugins", params={"limit": 2})).json()
    assert [item["name"] for item in first["items"]] == ["demo/b", "demo/d"]
    for name in ("a", "e"):
        await demo.release(f"demo/{name}")
    rest = await marketplace.client.get("/v1/plugins", params={"limit": 3, "cursor": first["next"]})
    assert [item["name"] for item in rest.json()["items"]] == ["demo/e", "demo/f", "demo/h"]
    assert rest.json()["next"] is None


@pytest.mark.parametrize("cursor", ["%", "ZGVtbw==", "!!!!", "A", "AA", "_w", ""])
async def test_a_cursor_that_is_not_ours_is_refused(marketplace, cursor):
    answer = await marketplace.client.get("/v1/plugins", params={"cursor": cursor})
    assert answer.status_code == (200 if cursor == "" else 422)
    if cursor:
        assert answer.json()["details"]["field"] == "cursor"


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 201}, {"q": "a\0b"}, {"q": "x" * 201}, {"q": "a b c d e f g h i"}],
    ids=str,
)
async def test_a_query_out_of_bounds_is_refused(marketplace, query):
    answer = await marketplace.client.get("/v1/plugins", params=query)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_input")


async def test_the_latest_release_is_the_newest_stable_one(marketplace):
    demo = await marketplace.publisher()
    seen = []
    for version in ("1.0.0-beta.2", "1.0.0-beta.10", "0.9.0", "1.10.0", "1.9.0", "2.0.0-rc.1"):
        marketplace.clock.advance(60)
        await demo.release("demo/hello", version, summary=f"This is {version}", readme=f"# {version}\n")
        detail = (await marketplace.client.get("/v1/plugins/demo/hello")).json()
        seen.append((detail["latest"], detail["summary"], detail["readme"]))
    latest = ["1.0.0-beta.2", "1.0.0-beta.10", "0.9.0", "1.10.0", "1.10.0", "1.10.0"]
    assert seen == [(version, f"This is {version}", f"# {version}\n") for version in latest]
    assert [release["version"] for release in detail["releases"]] == [
        "2.0.0-rc.1",
        "1.10.0",
        "1.9.0",
        "1.0.0-beta.10",
        "1.0.0-beta.2",
        "0.9.0",
    ]


async def test_a_plugin_is_told_whole(marketplace):
    demo = await marketplace.publisher()
    release = await demo.release("demo/hello", permissions=["storage.read"], categories=["data"])
    detail = (await marketplace.client.get("/v1/plugins/demo/hello")).json()
    assert detail == {
        "name": "demo/hello",
        "summary": "Greets people.",
        "kind": "tool",
        "categories": ["data"],
        "latest": "1.0.0",
        "published_at": "2026-03-01T12:00:00.123456Z",
        "owner": "demo",
        "license": "MIT",
        "homepage": None,
        "permissions": [{"need": "storage.read", "reason": "A test needs it.", "optional": False}],
        "releases": [
            {key: release[key] for key in ("version", "digest", "size", "keyid", "published_at")},
        ],
        "readme": "# Hello\n",
    }


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/plugins/demo/other", "plugin_missing"),
        ("/v1/plugins/demo/hello/2.0.0", "release_missing"),
        ("/v1/plugins/demo/hello/1.0.0+x", "release_missing"),
    ],
)
async def test_what_is_not_published_is_not_found(marketplace, path, code):
    demo = await marketplace.publisher()
    await demo.release("demo/hello")
    answer = await marketplace.client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, code)


async def resolve(market, requirements, locked=None):
    return await market.client.post(
        "/v1/resolve", json={"requirements": requirements, "locked": locked or {}}
    )


@pytest.mark.requirement("MKT-5")
async def test_a_lock_has_dependencies_first_and_all_that_a_host_needs(marketplace):
    demo = await marketplace.publisher()
    for version in ("1.0.0", "1.2.0", "2.0.0"):
        await demo.release("demo/base", version)
    await demo.release("demo/library", dependencies={"demo/base": "^1"})
    top = await demo.release("demo/app", dependencies={"demo/library": "*", "demo/base": "<1.5"})
    found = (await resolve(marketplace, {"demo/app": "^1"})).json()["releases"]
    assert [(each["plugin"], each["version"]) for each in found] == [
        ("demo/base", "1.2.0"),
        ("demo/library", "1.0.0"),
        ("demo/app", "1.0.0"),
    ]
    assert found[-1] == {
        "plugin": "demo/app",
        "version": "1.0.0",
        "digest": top["digest"],
        "size": top["size"],
        "keyid": top["keyid"],
        "public_key": top["public_key"],
        "dependencies": {"demo/library": "*", "demo/base": "<1.5"},
    }


async def test_a_lock_is_bounded(marketplace, monkeypatch):
    monkeypatch.setattr(service, "MAX_LOCK", 1)
    demo = await marketplace.publisher()
    await demo.release("demo/base")
    assert (await resolve(marketplace, {"demo/base": "*"})).status_code == 200
    await demo.release("demo/app", dependencies={"demo/base": "^1"})
    answer = await resolve(marketplace, {"demo/app": "*"})
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")


async def test_few_resolutions_are_at_work_at_a_time_few_wait_and_the_rest_are_refused(
    marketplace, monkeypatch
):
    monkeypatch.setattr(service, "MAX_WAITING", 3)
    demo = await marketplace.publisher()
    await demo.release("demo/base")
    at_work, most, go_on = 0, 0, asyncio.Event()
    loaded = service._closure

    async def slow(*given):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await go_on.wait()
        at_work -= 1
        return await loaded(*given)

    monkeypatch.setattr(service, "_closure", slow)
    asked = [asyncio.create_task(resolve(marketplace, {"demo/base": "*"})) for _ in range(8)]
    while len([each for each in asked if each.done()]) < 3 or at_work < service.RESOLUTIONS:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    done, waiting = await asyncio.wait(asked, timeout=0.1)
    assert {each.result().status_code for each in done} == {429}
    assert "try again" in next(iter(done)).result().json()["detail"]
    go_on.set()
    assert [each.status_code for each in await asyncio.gather(*waiting)] == [200] * 5
    assert most == service.RESOLUTIONS
    assert (await resolve(marketplace, {"demo/base": "*"})).status_code == 200


async def test_a_locked_version_is_kept_where_it_fits(marketplace):
    demo = await marketplace.publisher()
    for version in ("1.0.0", "1.1.0", "2.0.0"):
        await demo.release("demo/base", version)
    for wanted, version in (("^1", "1.0.0"), (">=1.1 <2", "1.1.0")):
        answer = await resolve(marketplace, {"demo/base": wanted}, {"demo/base": "1.0.0"})
        assert [each["version"] for each in answer.json()["releases"]] == [version]


async def test_a_conflict_is_told_in_sentences_that_name_both_sides(marketplace):
    demo = await marketplace.publisher()
    for version in ("1.0.0", "2.0.0"):
        await demo.release("demo/base", version)
    await demo.release("demo/left", dependencies={"demo/base": "^1"})
    await demo.release("demo/right", dependencies={"demo/base": "^2"})
    answer = await resolve(marketplace, {"demo/left": "*", "demo/right": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "unresolvable")
    assert all(name in answer.json()["detail"] for name in ("demo/left", "demo/right", "demo/base"))


async def test_an_unknown_plugin_cannot_be_resolved(marketplace):
    answer = await resolve(marketplace, {"demo/nothing": "*"})
    assert (answer.status_code, answer.json()["code"]) == (409, "unresolvable")
    assert "demo/nothing" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {"requirements": {}},
        {"requirements": {"demo/hello": "nonsense"}},
        {"requirements": {"hello": "*"}},
        {"requirements": {"demo/hello": "*"}, "locked": {"demo/hello": "1"}},
        {"requirements": {f"demo/p{number}": "*" for number in range(65)}},
    ],
    ids=["none", "range", "name", "locked", "many"],
)
async def test_a_question_out_of_form_is_refused(marketplace, body):
    assert (await marketplace.client.post("/v1/resolve", json=body)).status_code == 422
