# ruff: noqa: RUF001, SIM905 (letters that look like others are what it is about; tables are read as words)
"""Which destinations can be asked for, and which of the addresses they lead to are refused. Values only."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.egress.addresses import Found, Objection, first_objection, objection
from wirthforge_host.egress.destinations import destination, refusal, requested
from wirthforge_sdk.contracts.permissions import Permission, PermissionSet, covering, parse_rule
from wirthforge_sdk.errors import InvalidInputError, PermissionDeniedError, UnavailableError

NO_HOST = (
    # An address in another form than four decimal numbers: each of these is 127.0.0.1 or 169.254.169.254 to somebody.
    *"127.1 127.0.1 2130706433 017700000001 0177.0.0.1 0177.1 0x7f.1 0x7f.0.0.1 0x7f000001 0x7F000001 0X7f.1".split(),
    *"127.0.0.01 127.000.000.001 127.0.0.1.. 127.0.0.256 127.0.0.1.1 1.2.3 0 0.0 1 00 0x 0x0 4294967296".split(),
    *"2852039166 0xa9fea9fe 0251.0376.0251.0376 169.254.43518 0xa9.254.0251.254 7147006462 425.510.425.510".split(),
    *"example.0x7f example.1 a.08 example.0x".split(),
    # IPv6, with and without brackets.
    *"[::1] [::] [::ffff:127.0.0.1] [0:0:0:0:0:ffff:7f00:1] [fe80::1%25eth0] [fd00:ec2::254] ::1".split(),
    # Letters that other code folds into usual ones, or does not see.
    *"①②⑦.⓪.⓪.① 127。0。0。1 １２７.0.0.1 ⓔⓧⓐⓜⓟⓛⓔ.ⓒⓞⓜ exаmple.org bücher.example example。org".split(),
    *("\u212aexample.org", "examp\u00adle.org", "localhost\u200b"),
    # Parts of URLs, and what parsers disagree about.
    *"user@example.org example.org@10.0.0.1 http://example.org example.org/ example.org# example.org?".split(),
    *"example.org\\@evil.example example.org%00 example.org%2e * *.example.org example.org,evil.example a:b".split(),
    *("example.org\t", "example.org ", " example.org", "example.org\r\nHost: a", "example.org\x00.evil"),
    # No names of hosts.
    *(
        ". .. - -a.example a-.example a..example .example.org exa_mple.org example.org.. example.org:80".split()
    ),
    *("", "a" * 64 + ".example", ".".join(["a" * 60] * 5)),
)
HOSTS = {
    "example.org": "example.org",
    "EXAMPLE.Org": "example.org",
    "example.org.": "example.org",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "XN--BCHER-KVA.example": "xn--bcher-kva.example",
    "localhost": "localhost",
    "LOCALHOST.": "localhost",
    "127.0.0.1": "127.0.0.1",
    "127.0.0.1.": "127.0.0.1",
    "8.8.8.8": "8.8.8.8",
    "255.255.255.255": "255.255.255.255",
    "10.0.0.5": "10.0.0.5",
    "127.0.0.1.nip.example": "127.0.0.1.nip.example",
    "1.example": "1.example",
    "0x7f.example": "0x7f.example",
    "a.0x7g": "a.0x7g",
    "a1": "a1",
    "1a": "1a",
}


def test_the_table_is_as_long_as_the_lists_that_attackers_use():
    assert len(set(NO_HOST)) >= 80


@pytest.mark.parametrize("host", NO_HOST, ids=ascii)
def test_what_is_no_host_in_its_one_form_is_no_destination(host):
    with pytest.raises(InvalidInputError) as raised:
        destination(f"{host}:80")
    assert raised.value.details["reason"] == "malformed"
    with pytest.raises(InvalidInputError):
        Permission.parse(f"net.connect:{host}:80")


@pytest.mark.parametrize(("text", "host"), HOSTS.items())
def test_a_host_is_brought_into_the_form_that_permissions_have(text, host):
    found = destination(f"{text}:443")
    assert (found.host, found.port, found.permission) == (host, 443, f"net.connect:{host}:443")
    assert str(Permission.parse(found.permission)) == found.permission


@pytest.mark.parametrize(
    "port", ["", "0", "00", "080", "65536", "99999", "100000", "-1", "+80", "8o", "80 ", "８０", "0x50"]
)
def test_a_port_is_one_number_in_its_usual_form(port):
    with pytest.raises(InvalidInputError):
        destination(f"example.org:{port}")


def test_all_ports_there_are_can_be_asked_for():
    assert [destination(f"a:{port}").port for port in range(1, 65536)] == list(range(1, 65536))


@given(st.binary(max_size=200))
def test_whatever_is_asked_for_is_a_destination_or_refused(junk):
    for head in (junk, b"CONNECT " + junk + b" HTTP/1.1\r\n"):
        try:
            found = requested(head)
        except InvalidInputError:
            continue
        assert destination(str(found)) == found


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://example.org/ HTTP/1.1\r\n",
        b"connect example.org:443 HTTP/1.1\r\n",
        b"CONNECT example.org:443 HTTP/2\r\n",
        b"CONNECT example.org:443\r\n",
        b"CONNECT  example.org:443 HTTP/1.1\r\n",
        b"CONNECT example.org:443 10.0.0.1:1 HTTP/1.1\r\n",
        b"\r\nCONNECT example.org:443 HTTP/1.1\r\n",
        b"",
    ],
)
def test_only_connect_is_understood(head):
    with pytest.raises(InvalidInputError):
        requested(head)


def test_further_header_fields_say_nothing():
    assert str(requested(b"CONNECT a.example:1 HTTP/1.1\r\nHost: b.example:2\r\n")) == "a.example:1"


def test_a_wildcard_of_hosts_is_no_rule_and_covers_none():
    with pytest.raises(InvalidInputError):
        parse_rule("net.connect:api.*")
    assert covering("net.connect:api.evil.example:443") == (
        "net.connect:api.evil.example:443",
        "net.connect",
        "net",
    )
    assert not PermissionSet(frozenset({"net.connect:api.*"})).allows("net.connect:api.evil.example:443")
    assert parse_rule("events.publish:weather.*")


REFUSED = {
    Objection.METADATA: "169.254.169.254 169.254.170.2 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254 "
    "fd00:ec2::23 fd20:ce::254",
    Objection.LINK_LOCAL: "169.254.0.1 169.254.255.255 fe80::1 fe80::1%eth0 febf::1",
    Objection.LOOPBACK: "127.0.0.1 127.255.255.254 127.77.0.1 ::1",
    Objection.UNSPECIFIED: "0.0.0.0 0.1.2.3 ::",
    Objection.PRIVATE: "10.0.0.0 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 fc00::1 fd12::1",
    Objection.SHARED: "100.64.0.0 100.127.255.255",
    Objection.BENCHMARK: "198.18.0.1 198.19.255.255 2001:2::1",
    Objection.EMBEDDED: "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:a9fe:a9fe ::127.0.0.1 ::8.8.8.8 ::ffff:0:10.0.0.1 "
    "64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2001:0:1::1 "
    "2606:4700::5efe:10.0.0.1 2606:4700::200:5efe:10.0.0.1 192.88.99.1",
    Objection.MULTICAST: "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
    Objection.SITE_LOCAL: "fec0::1",
    Objection.DOCUMENTATION: "192.0.2.1 198.51.100.1 203.0.113.9 2001:db8::1 3fff::1",
    Objection.RESERVED: "192.0.0.1 240.0.0.1 255.255.255.255 2001:10::1 2001:20::1 100::1 200::1 4000::1 5f00::1 "
    "8000::1 e000::1 fe00::1 64:ff9b:2::1",
}
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 169.253.255.255 "
    "169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.167.1.1 192.169.0.0 198.17.255.255 198.20.0.0 223.255.255.255 "
    "168.63.129.17 2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 2001:200::1 2003::1 3ffe::1"
).split()


@pytest.mark.requirement("ISO-4")
@pytest.mark.parametrize(
    ("reason", "text"), [(why, text) for why, texts in REFUSED.items() for text in texts.split()]
)
def test_an_address_that_is_not_a_public_one_of_somebody_else_is_refused(reason, text):
    assert objection(Found(ip_address(text), own=False)) is reason


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_refused_only_when_it_is_of_this_machine(text):
    assert objection(Found(ip_address(text), own=False)) is None
    assert objection(Found(ip_address(text), own=True)) is Objection.OWN


def test_every_reason_is_in_the_table_or_is_that_the_address_is_own():
    assert set(REFUSED) == set(Objection) - {Objection.OWN}


@given(st.ip_addresses())
def test_what_the_standard_library_does_not_call_global_is_never_public(address):
    if not address.is_global:
        assert objection(Found(address, own=False)) is not None


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "fc00::/7", "::ffff:0:0/96", "2002::/16"]
)
@given(data=st.data())
def test_a_whole_network_is_refused(text, data):
    network = ip_network(text)
    number = data.draw(st.integers(int(network.network_address), int(network.broadcast_address)))
    assert objection(Found(type(network.network_address)(number), own=False)) is not None


def judged(*texts, listed=False, by_number=False, own=False):
    found = first_objection(
        [Found(ip_address(text), own) for text in texts], listed=listed, by_number=by_number
    )
    return found and found[1]


def test_one_private_address_among_public_ones_is_enough():
    assert judged("1.1.1.1", "8.8.8.8") is None
    assert judged("1.1.1.1", "10.0.0.1", "8.8.8.8") is Objection.PRIVATE


@pytest.mark.parametrize("text", ["10.0.0.1", "127.0.0.1", "100.64.0.1", "fd12::1", "198.18.0.1"])
def test_an_operator_can_open_private_addresses(text):
    assert judged(text) is not None
    assert judged(text, listed=True) is None
    assert judged("1.1.1.1", own=True, listed=True) is None


@pytest.mark.parametrize("text", ["169.254.169.254", "fd00:ec2::254", "169.254.1.1", "fe80::1"])
def test_metadata_and_the_link_are_opened_by_their_number_never_through_a_name(text):
    assert judged(text, listed=True) is not None
    assert judged(text, listed=True, by_number=True) is None


@pytest.mark.parametrize(
    "text", "0.0.0.0 ::ffff:127.0.0.1 224.0.0.1 64:ff9b::7f00:1 240.0.0.1 fec0::1".split()
)
def test_what_is_never_a_peer_cannot_be_opened(text):
    assert judged(text, listed=True, by_number=True) is not None


def test_a_refusal_names_the_permission_to_ask_for():
    answer = refusal(PermissionDeniedError("no", reason="not granted"), "net.connect:a:1")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b'"code": "PERMISSION_DENIED"' in body
    assert b'"permission": "net.connect:a:1"' in body
    assert refusal(UnavailableError("down", reason="unreachable"), None).startswith(b"HTTP/1.1 502 ")
