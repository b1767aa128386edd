"""What operators set for plugins: when it is taken, what it starts, and how a running plugin hears of it."""

import asyncio
from itertools import pairwise

import pytest
from sqlalchemy import text

from tests.fakes.configured import NEEDS, configured
from tests.fakes.world import PLUGIN, worker, world
from wirthforge_host.errors import ConfigurationInvalidError, SealBrokenError, VersionChangedError
from wirthforge_host.plugins import provisioning
from wirthforge_sdk.contracts.configuration_api import ConfigurationIn, Outcome, RollbackIn
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import InvalidInputError, NotFoundError

KEY = "k3y-of-the-weather-service"


class Kept:
    """A host, and what its operator sets for its plugin."""

    def __init__(self, host):
        self.host = host
        self.provisioning = host.wiring.provisioning

    async def set(self, values, *, whole=False, expected=None, reason="a test"):
        act = self.provisioning.replace if whole else self.provisioning.merge
        body = ConfigurationIn(values=values, reason=reason)
        return await act(PLUGIN, body, self.host.operator, expected=expected)

    async def set_secret(self, value=KEY, name="api_key"):
        return await self.provisioning.set_secret(PLUGIN, name, value, self.host.operator)

    async def told(self):
        return (await self.host.call("told")).structured["result"]


@pytest.fixture
async def kept(tmp_path):
    """Installed and approved, and nothing is set."""
    async with world(tmp_path / "h", configured()) as host:
        await host.install()
        await host.approve(*NEEDS)
        yield Kept(host)


@pytest.fixture
async def running(kept):
    """The same at work."""
    await kept.set({"city": "Paris"})
    await kept.set_secret()
    await kept.host.until(State.RUNNING)
    return kept


@pytest.mark.requirement("CORE-9")
async def test_a_plugin_waits_for_what_it_needs_by_name_and_starts_when_the_last_is_set(kept):
    waiting = await kept.host.plugin()
    assert waiting.state is State.AWAITING_APPROVAL
    assert waiting.cause == (
        f"the secret api_key is not set (`wirthforge secrets set {PLUGIN} api_key`); "
        "the configuration city: is missing; set it"
    )
    assert await kept.host.containers() == []
    set_first = await kept.set({"city": "Paris"})
    assert set_first.delivery.outcome is Outcome.NOT_RUNNING
    assert "api_key" in (await kept.host.plugin()).cause
    assert "city" not in (await kept.host.plugin()).cause
    set_last = await kept.set_secret()
    assert set_last.delivery.outcome is Outcome.APPLIED
    assert (await kept.host.plugin()).state is State.RUNNING
    expected = {"city": "Paris", "limits": {"per_day": 5}}
    assert (await kept.host.call("config")).structured == expected
    assert (await kept.host.call("secret")).structured == {"value": KEY}


async def test_a_plugin_that_lacks_a_permission_too_says_both(tmp_path):
    async with world(tmp_path / "h", configured()) as host:
        cause = (await host.install()).cause
    assert cause.startswith("to be decided: config.read, secrets.read:api_key; the secret api_key is not set")


async def test_an_optional_secret_is_not_waited_for(tmp_path):
    asks = '[[permissions]]\nneed = "secrets.read:extra"\nreason = "A test."\noptional = true\n'
    async with world(tmp_path / "h", worker(extra=asks)) as host:
        assert (await host.install()).state is State.RUNNING


@pytest.mark.requirement("CORE-9")
async def test_a_change_reaches_a_running_plugin_and_its_handler(running):
    made = await running.set({"limits": {"per_day": 7}})
    assert (made.version, made.delivery.version, made.delivery.outcome) == (2, 2, Outcome.APPLIED)
    assert await running.told() == [{"city": "Paris", "limits": {"per_day": 7}}]
    assert (await running.host.call("config")).structured == {"city": "Paris", "limits": {"per_day": 7}}


@pytest.mark.requirement("CORE-9")
async def test_a_change_that_the_plugin_refuses_stays_set_and_is_reported(running):
    async with running.host.wiring.events.subscribe() as events:
        made = await running.set({"city": "Atlantis"})
        seen = {event.type: event.data async for event in _until(events, "config.delivered")}
    reason = f"{PLUGIN}, wf/config.changed: ValueError: no weather under water"
    assert (made.delivery.outcome, made.delivery.reason) == (Outcome.FAILED, reason)
    assert seen["config.delivered"] == {"version": 2, "outcome": "failed", "reason": reason}
    shown = await running.provisioning.configuration(PLUGIN)
    assert (shown.values["city"], shown.delivery) == ("Atlantis", made.delivery)
    (record,) = [
        each for each in await running.host.audited("configuration.deliver") if each.outcome == "failed"
    ]
    assert record.detail == {"version": 2, "outcome": "failed"}


async def _until(events, last):
    async with asyncio.timeout(9):
        async for event in events:
            yield event
            if event.type == last:
                return


async def test_a_plugin_that_does_not_answer_a_change_holds_nobody_up(running, monkeypatch):
    monkeypatch.setattr(provisioning, "TELL_S", 0.05)
    made = await running.set({"city": "Nowhere"})
    assert (made.delivery.outcome, made.delivery.reason) == (Outcome.FAILED, "no answer within 0.05 s")
    assert (await running.host.call("config")).structured["city"] == "Nowhere"


async def test_a_plugin_that_listens_to_no_changes_reads_them_when_it_asks(tmp_path):
    async with world(tmp_path / "h", worker(extra=CITY, permissions=["config.read"])) as host:
        await host.install()
        await host.approve("config.read")
        made = await Kept(host).set({"city": "Rome"})
        assert made.delivery.outcome is Outcome.APPLIED


CITY = '[configuration.properties.city]\ntype = "string"\ndefault = "Paris"\n'


@pytest.mark.requirement("CORE-9")
async def test_every_version_is_kept_with_who_when_and_why_and_one_can_go_back(kept, tmp_path):
    await kept.set({"city": "Paris"}, reason="the first")
    await kept.set({"limits": {"hosts": ["a"]}}, reason="the second")
    await kept.set({"limits": None}, reason="the third")
    history = await kept.provisioning.history(PLUGIN, before=None, limit=50)
    assert [(each.version, each.author, each.reason) for each in history] == [
        (3, "operator:me", "the third"),
        (2, "operator:me", "the second"),
        (1, "operator:me", "the first"),
    ]
    assert all(later.at >= earlier.at for later, earlier in pairwise(history))
    back = RollbackIn(version=2, reason="it was better")
    made = await kept.provisioning.roll_back(PLUGIN, back, kept.host.operator, expected=3)
    assert (made.version, made.given) == (4, {"city": "Paris", "limits": {"hosts": ["a"]}})
    told = await kept.provisioning.differences(PLUGIN, 0, 4)
    assert [(each.path, each.before, each.after) for each in told.changes] == [
        ("city", None, "Paris"),
        ("limits", None, {"hosts": ["a"]}),
    ]
    assert (await kept.provisioning.differences(PLUGIN, 2, 4)).changes == []
    records = await kept.host.audited("configuration.change")
    assert [each.detail["changed"] for each in records] == [["city"], ["limits"], ["limits"], ["limits"]]
    assert "Paris" not in str([each.detail for each in records])


async def test_old_versions_are_forgotten_past_a_bound(kept, monkeypatch):
    monkeypatch.setattr("wirthforge_host.configuration.service.MAX_VERSIONS", 3)
    for number in range(5):
        await kept.set({"city": f"City {number}"})
    history = await kept.provisioning.history(PLUGIN, before=None, limit=50)
    assert [each.version for each in history] == [5, 4, 3]
    with pytest.raises(NotFoundError, match="has no version 2"):
        await kept.provisioning.differences(PLUGIN, 2, 5)


@pytest.mark.requirement("CORE-9")
async def test_a_wrong_value_is_refused_with_every_problem_and_nothing_is_kept(running):
    with pytest.raises(ConfigurationInvalidError) as refused:
        await running.set({"city": 3, "limits": {"per_day": 0}, "town": "x"})
    assert refused.value.details["problems"] == [
        "city: is of another type; give it as string",
        "limits.per_day: is too small; give at least 1",
        "town: is no setting of this plugin; remove it; there are: city, limits",
    ]
    assert (await running.provisioning.configuration(PLUGIN)).version == 1
    with pytest.raises(ConfigurationInvalidError, match="city: is missing"):
        await running.set({}, whole=True)


async def test_values_that_are_required_can_be_set_one_after_another(kept):
    made = await kept.set({"limits": {"per_day": 2}})
    assert [each.path for each in made.wrong] == ["city"]
    assert (await kept.set({"city": "Paris"})).wrong == []


async def test_who_looked_at_an_older_version_is_told_and_changes_nothing(kept):
    await kept.set({"city": "Paris"})
    with pytest.raises(VersionChangedError, match="is at version 1, not 0"):
        await kept.set({"city": "Rome"}, expected=0)
    assert (await kept.set({"city": "Rome"}, expected=1)).version == 2


async def test_of_changes_at_once_that_looked_at_the_same_version_one_is_made(kept):
    changes = [kept.set({"city": f"City {number}"}, expected=0) for number in range(5)]
    done = await asyncio.gather(*changes, return_exceptions=True)
    assert [type(each) for each in done].count(VersionChangedError) == 4
    assert (await kept.provisioning.configuration(PLUGIN)).version == 1


async def test_a_plugin_without_a_schema_takes_no_values(tmp_path):
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        with pytest.raises(InvalidInputError, match="has no configuration"):
            await Kept(host).set({"city": "Paris"})
        assert (await host.wiring.provisioning.form(PLUGIN)).fields == []


async def test_a_form_has_every_field_in_order_with_what_a_console_needs(kept):
    await kept.set({"city": "Paris"})
    city, per_day, hosts = (await kept.provisioning.form(PLUGIN)).fields
    assert (city.path, city.label, city.help) == ("city", "City", "Whose weather to tell.")
    assert (city.type, city.required, city.current, city.is_set) == ("string", True, "Paris", True)
    assert (per_day.path, per_day.group, per_day.label) == ("limits.per_day", ["Limits"], "Per day")
    assert (per_day.default, per_day.current, per_day.is_set) == (5, 5, False)
    assert per_day.constraints == {"minimum": 1}
    assert (hosts.type, hosts.current, hosts.constraints["items"]["type"]) == ("array", None, "string")


async def test_a_secret_is_listed_and_never_shown(running):
    (secret,) = await running.provisioning.kept(PLUGIN)
    assert (secret.name, secret.optional, secret.delivery, secret.standing) == (
        "api_key",
        False,
        "bridge",
        "granted",
    )
    assert (secret.set_by, secret.reason) == ("operator:me", "A test needs it.")
    assert secret.set_at is not None


async def test_a_secret_that_is_replaced_is_told_by_name_and_is_the_new_one_at_the_next_ask(running):
    made = await running.set_secret("another-key")
    assert made.delivery.outcome is Outcome.APPLIED
    assert await running.told() == [["api_key"]]
    assert (await running.host.call("secret")).structured == {"value": "another-key"}


async def test_a_secret_that_is_not_asked_for_cannot_be_set(running):
    with pytest.raises(NotFoundError, match="asks for no secret 'other'; it asks for: api_key"):
        await running.set_secret(name="other")
    with pytest.raises(NotFoundError, match="no secret 'other'"):
        await running.provisioning.remove_secret(PLUGIN, "other", running.host.operator)


@pytest.mark.parametrize("value", ["", "x" * (32 * 1024 + 1), "\ud800"])
async def test_a_secret_has_bounds(running, value):
    with pytest.raises(InvalidInputError, match="value"):
        await running.set_secret(value)


async def test_each_ask_for_a_secret_is_audited_by_name(running):
    await running.host.call("secret")
    (record,) = await running.host.audited("host_call")
    assert (record.outcome, record.detail["permission"]) == ("allowed", "secrets.read:api_key")


async def test_every_instance_hears_of_a_change(running):
    await running.host.wiring.scaling.scale(PLUGIN, 2, running.host.operator)
    await running.set({"city": "Oslo"})
    first, second = await running.told(), await running.told()
    assert first == second
    assert "Oslo" in str(first)


async def test_a_plugin_whose_secret_was_removed_goes_on_and_does_not_start_again_without_it(running):
    host = running.host
    await running.provisioning.remove_secret(PLUGIN, "api_key", host.operator)
    assert (await host.plugin()).state is State.RUNNING
    await host.disable()
    waiting = await host.enable()
    assert waiting.state is State.AWAITING_APPROVAL
    assert "the secret api_key is not set" in waiting.cause


async def test_a_plugin_that_crashes_without_its_secret_stays_down_until_it_is_set(running):
    host = running.host
    await running.provisioning.remove_secret(PLUGIN, "api_key", host.operator)
    instance = host.wiring.reconciler.live(PLUGIN)
    await host.engine.kill(instance.container_id)
    async with asyncio.timeout(9), host.wiring.events.subscribe() as events:
        while "it cannot start: the secret api_key is not set" not in (await host.plugin()).cause:
            await anext(events)
    assert (await host.plugin()).state is State.UNHEALTHY
    await running.set_secret()
    assert (await host.plugin()).state is State.RUNNING


async def test_an_uninstall_forgets_secrets_and_a_purge_the_configuration_too(running):
    host = running.host
    await host.uninstall()
    assert await _rows(host) == {"secrets": 0, "configuration_versions": 1}
    await host.uninstall(purge=True)
    assert await _rows(host) == {"secrets": 0, "configuration_versions": 0}


async def _rows(host):
    async with host.wiring.database.reading() as tx:
        return {
            name: await tx.scalar(text(f"SELECT count(*) FROM {name}"))  # noqa: S608
            for name in ("secrets", "configuration_versions")
        }


async def test_what_was_set_is_there_after_a_restart_of_the_host(tmp_path):
    async with world(tmp_path / "h", configured()) as host:
        await host.install()
        await host.approve(*NEEDS)
        await Kept(host).set({"city": "Paris"})
        await Kept(host).set_secret()
        source = host.source
    async with world(tmp_path / "h", source=source) as host:
        await host.until(State.RUNNING)
        assert (await host.call("secret")).structured == {"value": KEY}
        assert (await host.call("config")).structured["city"] == "Paris"


async def test_a_plugin_that_is_not_there_has_nothing_set(kept):
    for ask in (
        kept.provisioning.configuration("demo/none"),
        kept.provisioning.form("demo/none"),
        kept.provisioning.kept("demo/none"),
        kept.provisioning.history("demo/none", before=None, limit=1),
        kept.provisioning.differences("demo/none", 0, 0),
    ):
        with pytest.raises(NotFoundError):
            await ask


async def test_after_a_renewal_of_keys_secrets_are_sealed_anew_and_the_old_keys_are_gone(running):
    wiring = running.host.wiring
    async with wiring.database.reading() as tx:
        before = await tx.scalar(text("SELECT sealed FROM secrets"))
    upkeep = wiring.storage_upkeep
    await wiring.keyring.renew("operator:me")
    status = await upkeep.rotation()
    assert (status.done, status.plugins_left) == (False, [PLUGIN])
    await upkeep.settle()
    status = await upkeep.rotation()
    assert (status.done, status.plugins_left) == (True, [])
    assert await wiring.keyring.unsettled() == []
    async with wiring.database.reading() as tx:
        assert await tx.scalar(text("SELECT sealed FROM secrets")) != before
    assert await wiring.secrets.get(PLUGIN, "api_key") == KEY


async def test_a_secret_that_cannot_be_opened_keeps_its_key_and_is_told(running):
    wiring = running.host.wiring
    async with wiring.database.transaction() as tx:
        before = await tx.scalar(text("SELECT sealed FROM secrets"))
        await tx.execute(
            text("UPDATE secrets SET sealed = :as"), {"as": before[:-1] + bytes([before[-1] ^ 1])}
        )
    await wiring.storage_upkeep.rotate("operator:me")
    await wiring.storage_upkeep.settle()
    status = await wiring.storage_upkeep.rotation()
    assert (status.done, status.plugins_left, list(status.broken)) == (True, [PLUGIN], [PLUGIN])
    assert KEY not in status.broken[PLUGIN]
    async with wiring.database.transaction() as tx:
        await tx.execute(text("UPDATE secrets SET sealed = :as"), {"as": before})
    assert await wiring.secrets.get(PLUGIN, "api_key") == KEY


async def test_a_secret_that_is_moved_to_another_place_does_not_open(running):
    wiring = running.host.wiring
    async with wiring.database.transaction() as tx:
        await tx.execute(text("UPDATE secrets SET name = 'other'"))
    with pytest.raises(SealBrokenError):
        await wiring.secrets.get(PLUGIN, "other")
    await wiring.secrets.load()  # a host that finds it at its start goes on
    await wiring.keyring.renew("operator:me")
    await wiring.secrets.load()
