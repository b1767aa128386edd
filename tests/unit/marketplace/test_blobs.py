"""The bytes that stay in memory, and those on disk."""

from tests.fakes.packages import make_package
from wirthforge_marketplace.blobs import Recent


def test_recent_bytes_stay_below_their_bound_and_the_least_used_go_first():
    recent = Recent(10)
    recent.put("a", b"1234")
    recent.put("b", b"1234")
    assert recent.find("a") == b"1234"
    recent.put("c", b"1234")
    assert [recent.find(name) for name in "abc"] == [b"1234", None, b"1234"]
    recent.put("huge", b"x" * 11)
    assert recent.find("huge") is None
    recent.put("full", b"x" * 10)
    assert [recent.find(name) is None for name in ("a", "c", "full")] == [True, True, False]


def test_putting_the_same_bytes_twice_counts_them_once():
    recent = Recent(10)
    for _ in range(5):
        recent.put("a", b"12345")
    recent.put("b", b"12345")
    assert recent.find("a") == recent.find("b") == b"12345"


async def test_a_package_in_memory_is_cut_like_one_on_disk(marketplace):
    demo = await marketplace.publisher()
    package = make_package(key=demo.key)
    path = f"/v1/packages/{(await demo.publish(package)).json()['digest']}"
    part = {"Range": "bytes=10-19"}
    from_disk = await marketplace.client.get(path, headers=part)
    whole = [(await marketplace.client.get(path)).content for _ in range(2)]
    from_memory = await marketplace.client.get(path, headers=part)
    assert whole == [package, package]
    assert from_disk.content == from_memory.content == package[10:20]


async def test_a_release_that_was_not_there_is_there_once_it_is_published(marketplace):
    demo = await marketplace.publisher()
    path = "/v1/plugins/demo/hello/1.0.0"
    assert (await marketplace.client.get(path)).status_code == 404
    release = await demo.release("demo/hello")
    for _ in range(2):
        assert (await marketplace.client.get(path)).json() == release
