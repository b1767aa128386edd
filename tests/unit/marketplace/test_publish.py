"""Publishing a package, and everything that must not become one."""

import asyncio
import os

import pytest
from sqlalchemy import func, select

from tests.fakes.marketplace import bearer, key_body
from tests.fakes.packages import make_package
from wirthforge_marketplace.audit.store import audit_records
from wirthforge_marketplace.packages.store import releases
from wirthforge_sdk.contracts.identifiers import digest_of
from wirthforge_sdk.packaging.archive import Entry, join, pack, read
from wirthforge_sdk.packaging.build import sign
from wirthforge_sdk.packaging.keys import SigningKey


async def published(market):
    async with market.wiring.database.reading() as tx:
        return sorted((await tx.execute(select(releases.c.digest))).scalars())


def blobs(market):
    return sorted(
        f"sha256:{file.name}" for file in (market.wiring.settings.data_dir / "packages/sha256").glob("*/*")
    )


def incoming(market):
    return list((market.wiring.settings.data_dir / "packages/incoming").iterdir())


def changed(package, name, data):
    """``package`` with other bytes in one entry, everything else as it was."""
    members = {**read(package).members, name: pack(name, Entry(data))}
    return join(members.values())


@pytest.mark.requirement("MKT-10")
async def test_a_published_package_becomes_a_release_that_anybody_can_read(marketplace):
    demo = await marketplace.publisher()
    package = make_package(key=demo.key, permissions=["storage.read"])
    answer = await demo.publish(package)
    assert answer.status_code == 201
    release = answer.json()
    assert release["digest"] == digest_of(package)
    assert release["size"] == len(package)
    assert release["public_key"] == str(demo.key.public)
    assert release["published_at"] == "2026-03-01T12:00:00.123456Z"
    assert [function["name"] for function in release["functions"]] == ["greet"]
    assert (await marketplace.client.get("/v1/plugins/demo/hello/1.0.0")).json() == release
    assert (await marketplace.client.get(f"/v1/packages/{release['digest']}")).content == package


@pytest.mark.requirement("MKT-13")
async def test_publishing_the_same_bytes_again_gives_the_same_release(marketplace):
    demo = await marketplace.publisher()
    package = make_package(key=demo.key)
    first = await demo.publish(package)
    marketplace.clock.advance(60)
    again = await demo.publish(package)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    async with marketplace.wiring.database.reading() as tx:
        recorded = select(func.count()).where(audit_records.c.action == "release.published")
        assert (await tx.execute(recorded)).scalar() == 1


@pytest.mark.requirement("MKT-4")
@pytest.mark.parametrize("version", ["1.0.0", "1.0.0+other"])
async def test_a_version_is_never_published_with_other_bytes(marketplace, version):
    demo = await marketplace.publisher()
    await demo.release("demo/hello")
    answer = await demo.publish(make_package(version=version, key=demo.key, readme="# Other\n"))
    assert (answer.status_code, answer.json()["code"]) == (409, "release_exists")
    assert len(blobs(marketplace)) == 1
    assert incoming(marketplace) == []


async def test_of_many_who_publish_one_version_at_a_time_exactly_one_wins(marketplace):
    demo = await marketplace.publisher()
    packages = [make_package(key=demo.key, readme=f"# {number}\n") for number in range(8)]
    answers = await asyncio.gather(*(demo.publish(package) for package in packages))
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 7]
    (winner,) = (answer.json()["digest"] for answer in answers if answer.status_code == 201)
    assert await published(marketplace) == blobs(marketplace) == [winner]


async def test_of_many_who_publish_the_same_bytes_at_a_time_one_makes_the_release(marketplace):
    demo = await marketplace.publisher()
    package = make_package(key=demo.key)
    answers = await asyncio.gather(*(demo.publish(package) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [*[200] * 5, 201]
    assert len({answer.text for answer in answers}) == 1


async def test_a_package_signed_with_a_revoked_key_is_refused(marketplace):
    demo = await marketplace.publisher()
    before = await demo.publish(make_package(key=demo.key))
    await marketplace.client.delete(f"/v1/keys/{demo.key.public.keyid}", headers=demo.headers)
    answer = await demo.publish(make_package(version="1.1.0", key=demo.key))
    assert (answer.status_code, answer.json()["code"]) == (400, "key_revoked")
    assert await published(marketplace) == [before.json()["digest"]]
    assert blobs(marketplace) == [before.json()["digest"]]


async def test_a_package_is_refused_that_no_key_of_the_account_signed(marketplace):
    demo = await marketplace.publisher()
    await marketplace.publisher("other")
    for key in (SigningKey.generate(), (await marketplace.publisher("third")).key):
        answer = await demo.publish(make_package(key=key))
        assert (answer.status_code, answer.json()["code"]) == (400, "signature_invalid")
    assert await published(marketplace) == blobs(marketplace) == []


async def test_an_account_without_a_key_is_told_to_register_one(marketplace):
    answer = await marketplace.client.post("/v1/accounts", json={"name": "demo"})
    headers = {"Authorization": f"Bearer {answer.json()['token']['secret']}"}
    answer = await marketplace.client.post("/v1/releases", content=make_package(), headers=headers)
    assert answer.json()["code"] == "signature_invalid"
    assert "register" in answer.json()["detail"]


async def test_a_package_goes_only_into_a_namespace_of_the_account(marketplace):
    demo = await marketplace.publisher()
    await marketplace.publisher("taken")
    unclaimed = await demo.publish(make_package("nobody/hello", key=demo.key))
    assert (unclaimed.status_code, unclaimed.json()["code"]) == (404, "namespace_missing")
    foreign = await demo.publish(make_package("taken/hello", key=demo.key))
    assert (foreign.status_code, foreign.json()["code"]) == (403, "namespace_foreign")
    assert await published(marketplace) == blobs(marketplace) == []


async def test_a_bad_package_is_refused_by_the_name_of_its_entry(marketplace):
    demo = await marketplace.publisher()
    good = make_package(key=demo.key)
    for package, code, entry in (
        (changed(good, "src/plugin.py", b"evil = 1\n"), "digest_mismatch", "src/plugin.py"),
        (changed(good, "src/added.py", b"evil = 1\n"), "package_invalid", "src/added.py"),
        (good.replace(b"src/plugin.py", b"../../evil.py"), "package_invalid", "../../evil.py"),
    ):
        answer = await demo.publish(package)
        assert answer.json()["code"] == code
        assert entry in answer.json()["detail"]
    assert await published(marketplace) == blobs(marketplace) == incoming(marketplace) == []


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"PK\x03\x04", b"\0" * 5000], ids=["empty", "text", "torn", "zeros"]
)
async def test_what_is_no_package_is_refused(marketplace, body):
    demo = await marketplace.publisher()
    answer = await demo.publish(body)
    assert (answer.status_code, answer.json()["code"]) == (422, "package_invalid")
    assert blobs(marketplace) == incoming(marketplace) == []


async def test_a_package_over_the_bound_is_refused_while_it_comes(marketplace):
    demo = await marketplace.publisher()
    limit = marketplace.wiring.settings.max_package_bytes
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield b"\0" * 64 * 1024

    answer = await marketplace.client.post("/v1/releases", content=endless(), headers=demo.headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "package_too_large")
    assert sent == limit + 64 * 1024
    assert incoming(marketplace) == []


async def test_a_package_that_declares_too_much_is_refused_before_it_is_read(marketplace):
    demo = await marketplace.publisher()
    reads = 0

    async def body():
        nonlocal reads
        reads += 1
        yield b"x"

    length = str(marketplace.wiring.settings.max_package_bytes + 1)
    headers = {**demo.headers, "Content-Length": length}
    answer = await marketplace.client.post("/v1/releases", content=body(), headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (413, "limit_exceeded")
    assert reads == 0


@pytest.mark.parametrize("lacks", ["scope", "key", "live key", "namespace"])
async def test_who_cannot_publish_is_told_so_before_the_body_is_read(marketplace, lacks):
    if lacks in {"scope", "live key"}:
        demo = await marketplace.publisher()
        headers = demo.headers
    else:
        answer = await marketplace.client.post("/v1/accounts", json={"name": "demo"})
        headers = bearer(answer.json()["token"]["secret"])
    if lacks == "scope":
        made = await demo.post("/v1/tokens", {"label": "job", "scopes": ["account"]})
        headers = bearer(made.json()["secret"])
    elif lacks == "live key":
        await marketplace.client.delete(f"/v1/keys/{demo.key.public.keyid}", headers=headers)
    elif lacks == "namespace":
        body = key_body("demo", SigningKey.generate())
        assert (await marketplace.client.post("/v1/keys", json=body, headers=headers)).status_code == 201
    reads = 0

    async def body():
        nonlocal reads
        reads += 1
        yield b"x"

    answer = await marketplace.client.post("/v1/releases", content=body(), headers=headers)
    codes = {
        "scope": "scope_missing",
        "key": "signature_invalid",
        "live key": "key_revoked",
        "namespace": "namespace_missing",
    }
    assert (answer.json()["code"], reads) == (codes[lacks], 0)


async def test_a_body_that_breaks_off_leaves_nothing_behind(marketplace):
    demo = await marketplace.publisher()

    async def broken():
        yield b"x" * 1000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await marketplace.wiring.packages.publish(
            await marketplace.wiring.accounts.authenticate(demo.token), broken()
        )
    assert incoming(marketplace) == blobs(marketplace) == []


async def test_a_package_needs_its_dependencies_in_the_catalogue(marketplace):
    demo = await marketplace.publisher()
    package = make_package("demo/app", key=demo.key, dependencies={"demo/library": "^1.2"})
    for version in (None, "1.1.0"):
        if version:
            await demo.release("demo/library", version)
        answer = await demo.publish(package)
        assert (answer.status_code, answer.json()["code"]) == (422, "dependency_missing")
        assert answer.json()["details"]["field"] == "dependencies.demo/library"
    await demo.release("demo/library", "1.2.0")
    assert (await demo.publish(package)).status_code == 201


async def test_a_failing_commit_leaves_the_old_state(marketplace, monkeypatch):
    demo = await marketplace.publisher()
    package = make_package(key=demo.key)

    async def full_disk(_upload):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(marketplace.wiring.blobs, "keep", full_disk)
        assert (await demo.publish(package)).status_code == 500
    assert await published(marketplace) == []
    assert (await marketplace.client.get("/v1/plugins/demo/hello")).status_code == 404
    assert (await demo.publish(package)).status_code == 201


async def test_the_sweep_removes_old_orphans_and_nothing_else(marketplace):
    demo = await marketplace.publisher()
    release = await demo.release("demo/hello")
    root = marketplace.wiring.settings.data_dir / "packages"
    old, young = root / "incoming/old", root / "incoming/young"
    orphan = root / "sha256/ab" / ("ab" * 32)
    orphan.parent.mkdir(exist_ok=True)
    for file in (old, young, orphan):
        file.write_bytes(b"x")
    long_ago = marketplace.clock().timestamp() - 7200
    for file in (old, orphan, *root.glob("sha256/*/*")):
        os.utime(file, (long_ago, long_ago))
    os.utime(young, (marketplace.clock().timestamp(),) * 2)
    assert await marketplace.wiring.packages.sweep() == 2
    assert incoming(marketplace) == [young]
    assert blobs(marketplace) == [release["digest"]]


async def test_the_bytes_of_no_release_are_not_handed_out(marketplace):
    orphan = marketplace.wiring.settings.data_dir / "packages/sha256/ab" / ("ab" * 32)
    orphan.parent.mkdir()
    orphan.write_bytes(b"x")
    answer = await marketplace.client.get(f"/v1/packages/sha256:{'ab' * 32}")
    assert (answer.status_code, answer.json()["code"]) == (404, "release_missing")


async def test_a_text_that_a_database_could_stumble_over_comes_back_as_it_was(marketplace):
    demo = await marketplace.publisher()
    release = await demo.release(
        "demo/hello", summary="Grüße 😀 '; DROP TABLE releases; --", readme="a\0b 😀"
    )
    assert release["manifest"]["summary"] == "Grüße 😀 '; DROP TABLE releases; --"
    detail = (await marketplace.client.get("/v1/plugins/demo/hello")).json()
    assert detail["readme"] == "a\ufffdb 😀"


async def test_signing_anew_with_an_unknown_key_makes_a_package_unknown(marketplace):
    demo = await marketplace.publisher()
    package = sign(make_package(key=demo.key), SigningKey.generate())
    assert (await demo.publish(package)).json()["code"] == "signature_invalid"


async def test_a_new_key_publishes_the_next_version(marketplace):
    demo = await marketplace.publisher()
    await demo.release("demo/hello")
    key = SigningKey.generate()
    assert (await demo.post("/v1/keys", key_body("demo", key))).status_code == 201
    answer = await demo.publish(make_package(version="1.1.0", key=key))
    assert answer.json()["keyid"] == key.public.keyid
