"""The bytes of packages: whole, in part, and not again."""

import pytest

from tests.fakes.packages import make_package
from wirthforge_marketplace import blobs
from wirthforge_marketplace.api.ranges import Span, is_cached, wanted_span
from wirthforge_marketplace.errors import RangeUnsatisfiableError

ETAG = '"sha256:ab"'


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-5", Span(2, 6)),
        ("BYTES=2-5", Span(2, 6)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=2-99", Span(2, 10)),
        ("bytes=9-9", Span(9, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-99", Span(0, 10)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("", None),
    ],
)
def test_a_range_is_read_as_http_says(header, span):
    assert wanted_span(header, None, size=10, etag=ETAG) == span


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_without_a_byte_is_refused(header):
    with pytest.raises(RangeUnsatisfiableError):
        wanted_span(header, None, size=10, etag=ETAG)


@pytest.mark.parametrize("condition", ['"other"', f"W/{ETAG}", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_a_range_of_something_else_gives_the_whole(condition):
    assert wanted_span("bytes=0-1", condition, size=10, etag=ETAG) is None
    assert wanted_span("bytes=0-1", ETAG, size=10, etag=ETAG) == Span(0, 2)


@pytest.mark.parametrize(
    ("header", "cached"),
    [(None, False), (ETAG, True), (f"W/{ETAG}", True), (f'"x", {ETAG}', True), ("*", True), ('"x"', False)],
)
def test_a_client_is_believed_to_have_what_it_names(header, cached):
    assert is_cached(header, ETAG) is cached


@pytest.fixture
async def package(marketplace, monkeypatch):
    """The path and bytes of a package, of several chunks."""
    monkeypatch.setattr(blobs, "CHUNK_BYTES", 1000)
    demo = await marketplace.publisher()
    package = make_package(key=demo.key)
    assert len(package) > 3000
    digest = (await demo.publish(package)).json()["digest"]
    return f"/v1/packages/{digest}", package


async def test_a_package_comes_with_what_caches_need(marketplace, package):
    path, data = package
    answer = await marketplace.client.get(path)
    assert answer.content == data
    assert answer.headers["etag"] == f'"{path.rpartition("/")[2]}"'
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_head_tells_the_same_without_the_bytes(marketplace, package):
    path, _ = package
    whole, head = await marketplace.client.get(path), await marketplace.client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert dict(head.headers) == dict(whole.headers)


@pytest.mark.requirement("MKT-13")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_the_client_has_is_not_sent_again(marketplace, package, method):
    path, _ = package
    etag = (await marketplace.client.head(path)).headers["etag"]
    answer = await marketplace.client.request(method, path, headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize(("start", "end"), [(0, 1), (5, 2500), (999, 1001), (3000, None)])
async def test_a_part_is_the_bytes_it_says(marketplace, package, start, end):
    path, data = package
    last = len(data) - 1 if end is None else end - 1
    answer = await marketplace.client.get(path, headers={"Range": f"bytes={start}-{last}"})
    assert answer.status_code == 206
    assert answer.content == data[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{last}/{len(data)}"
    assert answer.headers["content-length"] == str(len(answer.content))


async def test_a_part_beyond_the_end_is_refused_with_the_size(marketplace, package):
    path, data = package
    answer = await marketplace.client.get(path, headers={"Range": f"bytes={len(data)}-"})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_unsatisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(data)}"


@pytest.mark.requirement("MKT-3")
async def test_a_damaged_package_is_not_handed_out(marketplace, package):
    path, data = package
    (file,) = (marketplace.wiring.settings.data_dir / "packages/sha256").glob("*/*")
    file.write_bytes(data[:-1])
    short = await marketplace.client.get(path)
    file.unlink()
    missing = await marketplace.client.get(path)
    for answer in (short, missing):
        assert (answer.status_code, answer.json()["code"]) == (503, "blob_damaged")


@pytest.mark.parametrize("digest", ["sha256:x", "..%2f..%2fetc", "0" * 64, f"sha256:{'A' * 64}"])
async def test_a_path_that_is_no_digest_finds_no_file(marketplace, digest):
    assert (await marketplace.client.get(f"/v1/packages/{digest}")).status_code in {404, 422}
