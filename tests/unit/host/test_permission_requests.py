"""Permissions asked for at run time: who waits for what, how it ends, and how much of it there may be."""

import asyncio

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world
from wirthforge_host.errors import CallTimedOutError, PluginLacksPermissionError
from wirthforge_host.permissions.requests import AT_ONCE, OPEN_OF_PLUGIN, Requests
from wirthforge_host.permissions.rights import Rights
from wirthforge_sdk.contracts.permissions import Permission, PermissionSet
from wirthforge_sdk.contracts.permissions_api import AnswerIn
from wirthforge_sdk.errors import ConflictError, LimitExceededError, NotFoundError, PermissionDeniedError

NOTIFY = Permission("ui.notify")
WAIT_S = 5


@pytest.fixture
def requests(audit, events, clock):
    return Requests(audit=audit, events=events, now=clock, monotonic=clock.monotonic)


@pytest.fixture
def rights():
    return Rights()


def asking(requests, rights, permission=NOTIFY, plugin="demo/a", digest="sha256:1"):
    return asyncio.create_task(requests.ask(plugin, digest, "i", rights, permission, "to tell of rain"))


async def waiting(requests, count=1, calls=None):
    async with asyncio.timeout(WAIT_S):
        while len(requests.pending()) != count or (calls and requests.pending()[0].waiting != calls):  # noqa: ASYNC110
            await asyncio.sleep(0)
    return requests.pending()


@pytest.mark.requirement("PERM-2")
async def test_a_grant_from_anywhere_lets_every_call_that_waits_go_on(requests, rights, events):
    first, second = asking(requests, rights), asking(requests, rights)
    [request] = await waiting(requests, calls=2)
    assert (request.plugin, request.permission, request.reason) == ("demo/a", "ui.notify", "to tell of rain")
    rights.replace(PermissionSet(frozenset({"ui"})), decided=1)
    await asyncio.wait_for(asyncio.gather(first, second), WAIT_S)
    assert requests.pending() == []
    assert [event.type for event in events.recent()] == ["permission.requested", "permission.request_ended"]


async def test_releases_of_one_plugin_are_answered_each_by_itself(requests, rights):
    other = Rights()
    first, second = asking(requests, rights), asking(requests, other, digest="sha256:2")
    asked = await waiting(requests, 2)
    assert {each.digest for each in asked} == {"sha256:1", "sha256:2"}
    rights.replace(PermissionSet(frozenset({"ui"})), decided=1)
    await asyncio.wait_for(first, WAIT_S)
    [left] = requests.pending()
    assert left.digest == "sha256:2"
    assert not second.done()
    second.cancel()


async def test_a_denial_by_rule_ends_the_wait(requests, rights):
    asked = asking(requests, rights)
    await waiting(requests)
    rights.replace(PermissionSet(denied=frozenset({"ui.notify"})), decided=1)
    with pytest.raises(PermissionDeniedError):
        await asyncio.wait_for(asked, WAIT_S)


async def test_a_refusal_holds_this_once_and_is_on_record(requests, rights, audit):
    asked = asking(requests, rights)
    [request] = await waiting(requests)
    await requests.refuse(request.id, actor="operator:anna", reason="not now")
    with pytest.raises(PermissionDeniedError):
        await asyncio.wait_for(asked, WAIT_S)
    again = asking(requests, rights)
    await waiting(requests)
    again.cancel()
    await audit.flush()
    assert [each.action for each in await audit.page()][::-1] == [
        "permission.request",
        "permission.deny_once",
        "permission.request",
    ]
    with pytest.raises(NotFoundError):
        await requests.refuse(request.id, actor="operator:anna", reason="late")


async def test_a_call_that_gives_up_withdraws_what_only_it_waited_for(requests, rights):
    first, second = asking(requests, rights), asking(requests, rights)
    await waiting(requests, calls=2)
    first.cancel()
    [request] = await waiting(requests, calls=1)
    second.cancel()
    await waiting(requests, 0)
    with pytest.raises(NotFoundError):
        requests.find(request.id)


async def test_nobody_waits_for_ever(audit, events, clock, rights):
    requests = Requests(audit=audit, events=events, now=clock, monotonic=clock.monotonic, patience_s=0.01)
    with pytest.raises(CallTimedOutError, match=r"ui\.notify"):
        await asyncio.wait_for(asking(requests, rights), WAIT_S)
    assert requests.pending() == []


async def test_a_plugin_asks_for_so_much_at_a_time_and_so_often(requests, rights, clock):
    asked = []
    for number in range(OPEN_OF_PLUGIN):
        if number >= AT_ONCE:
            clock.advance(10)
        asked.append(asking(requests, rights, Permission("secrets.read", f"s{number}")))
        await waiting(requests, number + 1)
    clock.advance(100)
    with pytest.raises(LimitExceededError, match="wait already"):
        await requests.ask("demo/a", "sha256:1", "i", rights, NOTIFY, "more")
    other = asking(requests, rights, plugin="demo/b")
    await waiting(requests, OPEN_OF_PLUGIN + 1)
    for task in (*asked, other):
        task.cancel()
    await waiting(requests, 0)
    for _ in range(int(AT_ONCE)):
        once = asking(requests, rights, plugin="demo/c")
        await waiting(requests)
        once.cancel()
        await waiting(requests, 0)
    with pytest.raises(LimitExceededError, match="less often"):
        await requests.ask("demo/c", "sha256:1", "i", rights, NOTIFY, "again")


SOURCE = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def look() -> str:
    plugin.request("storage.read", "to look something up")
    return str(plugin.storage.get("k"))
"""
OPTIONAL = '[[permissions]]\nneed = "storage.read"\nreason = "A test."\noptional = true\n'


@pytest.fixture
async def host(tmp_path):
    package = make_package(source=SOURCE, functions=offered(SOURCE), extra=OPTIONAL)
    async with world(tmp_path / "h", package) as opened:
        await opened.install()
        yield opened


async def answered(host, **answer):
    call = asyncio.create_task(host.call("look"))
    answers = host.wiring.answers
    [request] = await waiting(answers.requests)
    assert request.meaning == "read its own stored values"
    await answers.answer(request.id, AnswerIn(**answer), host.operator)
    return await asyncio.wait_for(call, WAIT_S)


@pytest.mark.requirement("PERM-2")
async def test_a_running_plugin_asks_and_an_operator_answers(host):
    with pytest.raises(PluginLacksPermissionError):
        await answered(host, decision="deny")
    assert (await answered(host, decision="approve", expires_in_s=3600)).structured == {"result": "None"}
    [rule] = await host.wiring.permissions.in_force(PLUGIN)
    assert (rule.rule, rule.expires_at is not None) == ("storage.read", True)
    why = await host.wiring.answers.why(PLUGIN, "storage.read")
    assert why.allowed
    assert "operator:me" in why.verdict


async def test_what_was_denied_always_is_asked_for_no_more(host):
    with pytest.raises(PluginLacksPermissionError):
        await answered(host, decision="deny_always")
    with pytest.raises(PluginLacksPermissionError):
        await host.call("look")
    assert host.wiring.answers.requests.pending() == []


async def test_an_answer_reaches_the_release_that_asked_and_no_other(tmp_path):
    packages = [
        make_package(version=version, source=SOURCE, functions=offered(SOURCE), extra=OPTIONAL)
        for version in ("1.0.0", "2.0.0")
    ]
    async with world(tmp_path / "h", packages[0], drain_timeout_s=0.5) as host:
        before = await host.install()
        host.source.put(packages[1])
        call = asyncio.create_task(host.call("look"))
        answers = host.wiring.answers
        [request] = await waiting(answers.requests)
        upgrade = asyncio.create_task(host.wiring.installer.upgrade(PLUGIN, "*", host.operator))
        async with asyncio.timeout(WAIT_S), host.wiring.events.subscribe() as events:
            while (await host.plugin()).version != "2.0.0":
                await anext(events)
        assert request.digest == before.digest
        with pytest.raises(ConflictError, match="not the release you looked at"):
            await answers.answer(request.id, AnswerIn(decision="approve"), host.operator)
        await upgrade
        await asyncio.gather(call, return_exceptions=True)
        assert await host.wiring.permissions.in_force(PLUGIN) == []


async def test_an_instance_that_ends_withdraws_what_it_asked_for(host):
    call = asyncio.create_task(host.call("look"))
    await waiting(host.wiring.answers.requests)
    await host.wiring.containment.kill(PLUGIN, cause="a test", actor="test")
    await asyncio.gather(call, return_exceptions=True)
    assert host.wiring.answers.requests.pending() == []
