"""Installing: what comes is believed by its signatures alone, and comes whole or not at all."""

import asyncio

import pytest

from tests.fakes.host import verification
from tests.fakes.packages import make_package
from tests.fakes.source import ShelfSource
from tests.fakes.world import PLUGIN, World, world
from wirthforge_host.errors import AuthorChangedError, PolicyViolationError
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.marketplace_api import ResolveOut
from wirthforge_sdk.contracts.resources import MIB
from wirthforge_sdk.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidInputError,
    LimitExceededError,
    PackageInvalidError,
    SignatureInvalidError,
    UnavailableError,
    UnresolvableError,
    UntrustedError,
)
from wirthforge_sdk.packaging.keys import SigningKey

NEEDY = ("storage.read",)
"""A plugin that asks for this waits for its operator, and needs no process."""


def package(name=PLUGIN, version="1.0.0", **more):
    return make_package(name, version, **{"permissions": NEEDY, **more})


@pytest.fixture
async def host(tmp_path):
    async with world(tmp_path / "h") as opened:
        yield opened


async def names(host: World) -> list[str]:
    return [record.name for record in await host.wiring.plugins.records()]


async def assert_nothing_came(host: World, code: str, plugin: str = PLUGIN) -> None:
    """Neither row nor tree, and one record that says why."""
    assert await names(host) == []
    assert host.directories("releases") == set()
    assert await host.wiring.plugins.pinned_key(plugin) is None
    (record,) = await host.audited(plugin=plugin)
    assert (record.actor, record.action, record.outcome) == ("operator:me", "plugin.install", "failed")
    assert record.detail["code"] == code


@pytest.mark.requirement("MKT-5")
async def test_a_release_is_brought_with_what_it_needs_and_all_of_it_is_recorded(host):
    base = host.source.put(package("demo/base", "1.4.0"))
    mid = host.source.put(package("demo/mid", dependencies={"demo/base": "^1.2"}))
    top = host.source.put(package(dependencies={"demo/mid": "*", "demo/base": ">=1"}))
    installed = await host.install()
    assert (installed.name, installed.version, installed.digest) == (PLUGIN, "1.0.0", top)
    assert installed.state is State.AWAITING_APPROVAL
    assert await names(host) == ["demo/base", PLUGIN, "demo/mid"]
    assert host.directories("releases") == {each.removeprefix("sha256:") for each in (base, mid, top)}
    records = await host.audited("plugin.install")
    assert [(each.plugin, each.outcome) for each in records] == [
        ("demo/base", "allowed"),
        ("demo/mid", "allowed"),
        (PLUGIN, "allowed"),
    ]
    assert records[-1].detail == {"version": "1.0.0", "digest": top}
    assert (await verification(host.wiring.checkpoints)).problem is None


async def test_the_newest_version_in_the_range_is_brought(host):
    for version in ("1.0.0", "1.9.0", "2.0.0"):
        host.source.put(package(version=version))
    assert (await host.install(f"{PLUGIN}@^1")).version == "1.9.0"


async def test_installing_what_is_there_changes_nothing(host):
    host.source.put(package())
    first = await host.install()
    before = await host.audited()
    host.source.packages.clear()
    assert await host.install() == first
    assert await host.install(f"{PLUGIN}@^1") == first
    assert await host.audited() == before


async def test_another_version_of_what_is_installed_is_a_conflict_that_names_the_remedy(host):
    host.source.put(package(version="1.0.0"))
    await host.install()
    host.source.put(package(version="2.0.0"))
    with pytest.raises(ConflictError, match=r"wirthforge upgrade demo/hello@2\.0\.0"):
        await host.install(f"{PLUGIN}@2")
    assert (await host.plugin()).version == "1.0.0"
    assert len(host.directories("releases")) == 1


GREEDY = {"cpus": 2.5, "memory_bytes": 64 * 1024 * MIB, "pids": 513, "open_files": 4097} | {
    "tmpfs_bytes": 128 * MIB + 1,
    "storage_bytes": 1024 * MIB + 1,
    "io_bytes_per_s": 128 * MIB + 1,
    "io_operations_per_s": 4_001,
    "calls_per_s": 100_001,
}


@pytest.mark.parametrize("limit", GREEDY)
async def test_a_release_that_asks_for_more_than_the_operator_gives_is_not_brought(host, limit, monkeypatch):
    monkeypatch.setattr(host.wiring.installer.trees, "unpack", None)
    host.source.put(package(extra=f"[resources]\n{limit} = {GREEDY[limit]}\n"))
    with pytest.raises(
        PolicyViolationError, match=f"{limit} {GREEDY[limit]}, .* rule cap.{limit} "
    ) as caught:
        await host.install()
    assert caught.value.details["rule"] == f"cap.{limit}"
    await assert_nothing_came(host, "policy_violation")


@pytest.mark.requirement("SCH-3")
async def test_a_release_that_asks_for_a_right_beyond_the_policy_is_not_brought(tmp_path, monkeypatch):
    policy = tmp_path / "policy.toml"
    policy.write_text('[allow]\npermissions = ["storage.write", "events"]\n')
    async with world(tmp_path / "h", policy=policy) as host:
        monkeypatch.setattr(host.wiring.installer.trees, "unpack", None)
        host.source.put(package())
        with pytest.raises(
            PolicyViolationError, match=r"asks for storage\.read, .* allow\.permissions"
        ) as caught:
            await host.install()
        assert caught.value.details["rule"] == "allow.permissions"
        await assert_nothing_came(host, "policy_violation")


@pytest.mark.requirement("RES-2")
async def test_tiers_and_defaults_of_the_operator_are_the_limits_of_what_is_installed(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[defaults]\ntool = "micro"\n[tiers.micro]\npids = 16\n')
    async with world(tmp_path / "h", package(), policy=policy) as host:
        limits = (await host.install()).limits
        assert (limits.pids, limits.memory_bytes) == (16, 64 * MIB)


async def test_a_policy_that_was_narrowed_holds_for_what_is_installed(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    async with world(tmp_path / "h", package(), policy=policy) as host:
        await host.install()
    policy.write_text("[cap]\npids = 32\n")
    async with world(tmp_path / "h", policy=policy) as host:
        plugin = await host.approve("storage.read")
        assert plugin.state is State.UNHEALTHY
        assert "cap.pids" in plugin.cause
        assert await host.containers() == []


async def test_a_dependency_is_held_to_the_same_bounds(host):
    host.source.put(package("demo/base", extra="[resources]\nmemory_bytes = 2147483648\n"))
    host.source.put(package(dependencies={"demo/base": "*"}))
    with pytest.raises(PolicyViolationError, match="demo/base"):
        await host.install()
    await assert_nothing_came(host, "policy_violation")


async def test_the_largest_tier_fits_and_an_operator_may_give_more(tmp_path):
    large = package(extra='[resources]\ntier = "large"\n')
    huge = package("demo/huge", extra="[resources]\nmemory_bytes = 2147483648\n")
    policy = tmp_path / "policy.toml"
    policy.write_text("[cap]\nmemory_bytes = 2147483648\n")
    async with world(tmp_path / "h", large, huge, policy=policy) as host:
        assert (await host.install()).limits.memory_bytes == 1024 * MIB
        assert (await host.install("demo/huge")).limits.memory_bytes == 2048 * MIB


async def test_a_conflict_is_found_before_anything_is_brought(host):
    host.source.put(package("demo/base", "1.0.0"))
    await host.install("demo/base")
    host.source.put(package("demo/base", "2.0.0"))
    host.source.put(package("demo/first"))
    host.source.put(package(dependencies={"demo/first": "*", "demo/base": "^2"}))
    with pytest.raises(ConflictError):
        await host.install()
    assert await names(host) == ["demo/base"]


async def test_versions_that_do_not_fit_together_are_told_and_recorded(host):
    host.source.put(package(dependencies={"demo/base": "^3"}))
    host.source.put(package("demo/base", "2.0.0"))
    with pytest.raises(UnresolvableError, match="demo/base"):
        await host.install()
    await assert_nothing_came(host, "unresolvable")


@pytest.mark.parametrize(
    "reference", ["hello", "demo/hello@@", "../../etc", "demo/hello@one", "Demo/Hello", ""]
)
async def test_a_malformed_reference_is_refused_and_no_source_is_asked(host, reference):
    with pytest.raises(InvalidInputError):
        await host.wiring.installer.install(reference, host.operator)
    assert host.directories("releases") == set()


@pytest.mark.requirement("MKT-3")
async def test_other_bytes_than_those_resolved_are_refused(host):
    digest = host.source.put(package())
    host.source.packages[digest] = package(summary="Greets attackers.")
    with pytest.raises(DigestMismatchError, match="the marketplace sent sha256:"):
        await host.install()
    await assert_nothing_came(host, "digest_mismatch")


@pytest.mark.parametrize("bytes_left", [0, 1, 100, -1])
async def test_a_truncated_download_is_refused(host, bytes_left):
    whole = package()
    host.source.packages[host.source.put(whole)] = whole[:bytes_left]
    with pytest.raises(PackageInvalidError):
        await host.install()
    await assert_nothing_came(host, "package_invalid")


@pytest.mark.parametrize("field", ["plugin", "version"])
async def test_a_genuine_package_of_another_name_or_version_is_refused(host, field):
    digest = host.source.put(package("demo/other", "3.0.0"))
    resolved = host.source._releases[digest]
    wanted = {"plugin": PLUGIN, "version": "1.0.0"}
    host.source._releases[digest] = resolved.model_copy(update={field: wanted[field]})
    name = PLUGIN if field == "plugin" else "demo/other"
    with pytest.raises(DigestMismatchError, match=r"the package is of demo/other 3\.0\.0"):
        await host.install(name)
    await assert_nothing_came(host, "digest_mismatch", name)


async def test_a_package_that_another_key_signed_is_refused(host):
    host.source.put(package(), key=SigningKey.generate().public)
    with pytest.raises(SignatureInvalidError):
        await host.install()
    await assert_nothing_came(host, "signature_invalid")


@pytest.mark.requirement("VAL-5")
async def test_another_author_is_refused_for_ever_after_the_first_install(host):
    host.source.put(package())
    first = await host.install()
    await host.uninstall()
    thief = SigningKey.generate()
    host.source._releases.clear()
    host.source.put(package(version="1.0.1", key=thief), key=thief.public)
    with pytest.raises(AuthorChangedError, match="wirthforge uninstall --purge demo/hello") as refused:
        await host.install()
    assert first.signer in refused.value.message
    assert thief.public.keyid in refused.value.message
    assert await names(host) == []
    assert host.directories("releases") == set()


async def test_purging_forgets_the_author(host):
    host.source.put(package())
    await host.install()
    await host.uninstall(purge=True)
    heir = SigningKey.generate()
    host.source._releases.clear()
    host.source.put(package(key=heir), key=heir.public)
    assert (await host.install()).signer == heir.public.keyid


async def test_a_release_for_another_host_is_refused(host):
    host.source.put(package(extra='[compatibility]\nhost = ">=2.0"'))
    with pytest.raises(ConflictError, match=r"needs a host >=2\.0, this is 1\.0\.0"):
        await host.install()
    await assert_nothing_came(host, "conflict")


async def test_a_failure_in_the_last_release_leaves_nothing_of_those_before(host):
    host.source.put(package("demo/base"))
    digest = host.source.put(package(dependencies={"demo/base": "*"}))
    host.source.packages[digest] = b"PK"
    with pytest.raises(PackageInvalidError):
        await host.install()
    await assert_nothing_came(host, "package_invalid")


class Away(ShelfSource):
    """A source that goes away."""

    def __init__(self, *packages, when):
        super().__init__(*packages)
        self._when = when

    async def resolve(self, requirements, locked):
        if self._when == "resolve":
            raise UnavailableError("the marketplace does not answer")
        return await super().resolve(requirements, locked)

    async def download(self, release):
        raise UnavailableError(f"the marketplace does not answer for {release.plugin}")


@pytest.mark.parametrize("when", ["resolve", "download"])
async def test_a_marketplace_that_is_away_is_said_to_be_and_recorded(tmp_path, when):
    async with world(tmp_path / "h", source=Away(package(), when=when)) as host:
        with pytest.raises(UnavailableError, match="does not answer"):
            await host.install()
        await assert_nothing_came(host, "unavailable")


class Liar(ShelfSource):
    """A source that answers with releases of its own choice."""

    async def resolve(self, *_):
        return ResolveOut.model_construct(releases=list(self._releases.values()))


async def test_a_release_that_nothing_needs_is_not_let_in(tmp_path):
    async with world(tmp_path / "h", source=Liar(package("evil/miner", permissions=()), package())) as host:
        with pytest.raises(UntrustedError, match="evil/miner, which nothing needs"):
            await host.install()
        await assert_nothing_came(host, "untrusted")


async def test_a_release_outside_the_range_asked_for_is_not_let_in(tmp_path):
    async with world(tmp_path / "h", source=Liar(package(version="0.9.0"))) as host:
        with pytest.raises(UntrustedError, match=r"no demo/hello \^1"):
            await host.install(f"{PLUGIN}@^1")
        await assert_nothing_came(host, "untrusted")


async def test_a_release_without_what_it_needs_is_not_let_in(tmp_path):
    async with world(tmp_path / "h", source=Liar(package(dependencies={"demo/base": "^1"}))) as host:
        with pytest.raises(UntrustedError, match=r"no demo/base \^1"):
            await host.install()
        await assert_nothing_came(host, "untrusted")


async def test_another_plugin_in_the_place_of_the_one_asked_for_is_not_let_in(tmp_path):
    async with world(tmp_path / "h", source=Liar(package("demo/other"))) as host:
        with pytest.raises(UntrustedError):
            await host.install()
        await assert_nothing_came(host, "untrusted")


async def test_two_releases_of_one_plugin_are_not_let_in(tmp_path):
    async with world(tmp_path / "h", source=Liar(package(), package(version="1.0.1"))) as host:
        with pytest.raises(UntrustedError):
            await asyncio.wait_for(host.install(), 5)
        await assert_nothing_came(host, "untrusted")


async def test_releases_that_need_each_other_are_brought(tmp_path):
    source = Liar(
        package("demo/a", dependencies={"demo/b": "*"}), package("demo/b", dependencies={"demo/a": "*"})
    )
    async with world(tmp_path / "h", source=source) as host:
        await asyncio.wait_for(host.install("demo/a"), 5)
        assert await names(host) == ["demo/a", "demo/b"]


async def test_a_closure_has_a_bound(tmp_path):
    resolved = ShelfSource(package())._releases.popitem()[1]
    source = Liar()
    source._releases = {
        str(number): resolved.model_copy(update={"plugin": f"demo/p{number}"}) for number in range(51)
    }
    async with world(tmp_path / "h", source=source) as host:
        with pytest.raises(LimitExceededError, match="more than 50"):
            await host.install()
        await assert_nothing_came(host, "limit_exceeded")


async def test_installs_at_the_same_time_bring_each_release_once(host):
    host.source.put(package("demo/base"))
    for name in ("demo/a", "demo/b", "demo/c"):
        host.source.put(package(name, dependencies={"demo/base": "*"}))
    async with asyncio.timeout(9), asyncio.TaskGroup() as group:
        for name in ("demo/a", "demo/b", "demo/c", "demo/a"):
            group.create_task(host.install(name))
    assert await names(host) == ["demo/a", "demo/b", "demo/base", "demo/c"]
    assert len(await host.audited("plugin.install")) == 4


async def test_an_install_whose_caller_went_away_leaves_nothing(tmp_path):
    asked = asyncio.Event()

    class Slow(ShelfSource):
        async def download(self, release):
            if release.plugin == PLUGIN:
                asked.set()
                await asyncio.Event().wait()
            return await super().download(release)

    source = Slow(package("demo/base"), package(dependencies={"demo/base": "*"}))
    async with world(tmp_path / "h", source=source) as host:
        install = asyncio.create_task(host.install())
        await asyncio.wait_for(asked.wait(), 5)
        assert len(host.directories("releases")) == 1
        install.cancel()
        with pytest.raises(asyncio.CancelledError):
            await install
        assert await names(host) == []
        assert host.directories("releases") == set()
        assert (await host.install("demo/base")).name == "demo/base"
