"""Which addresses a plugin may be connected to, judged by their value: no clock, no network.

Sources: the special-purpose address registries of IANA (RFC 6890, as of 2026), RFC 6052 and 8215 (NAT64), RFC 3056
(6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), and what clouds document as the addresses of their metadata services.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple, TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


class Objection(StrEnum):
    """Why nobody is connected to an address."""

    METADATA = "metadata"
    """A cloud tells its machines secrets there."""
    LINK_LOCAL = "link-local"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "shared by a provider's customers"
    BENCHMARK = "benchmark"
    OWN = "of this machine"
    EMBEDDED = "an address in an address"
    """A translator or a tunnel may lead from it to the one that stands in it."""
    UNSPECIFIED = "unspecified"
    MULTICAST = "multicast"
    SITE_LOCAL = "site-local"
    DOCUMENTATION = "documentation"
    RESERVED = "reserved"


LISTABLE = frozenset(
    {Objection.LOOPBACK, Objection.PRIVATE, Objection.SHARED, Objection.BENCHMARK, Objection.OWN}
)
"""What an operator can open for a destination."""
LISTABLE_BY_NUMBER = LISTABLE | {Objection.LINK_LOCAL, Objection.METADATA}
"""And for one that is an address itself: whoever answers for a name must not be able to choose these."""

_SPECIAL: tuple[tuple[Objection, tuple[str, ...]], ...] = (
    (
        Objection.METADATA,
        (
            "169.254.169.254/32",  # nearly every cloud
            "169.254.170.2/32",  # container credentials of AWS
            "169.254.170.23/32",
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle
            "168.63.129.16/32",  # Azure, though public
            "fd00:ec2::/32",  # AWS: ::254, ::23
            "fd20:ce::254/128",  # Google
            "fd00:42::42/128",  # Scaleway
        ),
    ),
    (Objection.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (Objection.LOOPBACK, ("127.0.0.0/8", "::1/128")),
    (Objection.UNSPECIFIED, ("0.0.0.0/8", "::/128")),
    (Objection.PRIVATE, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")),
    (Objection.SHARED, ("100.64.0.0/10",)),
    (Objection.BENCHMARK, ("198.18.0.0/15", "2001:2::/48")),
    (
        Objection.EMBEDDED,
        (
            "::ffff:0:0/96",
            "::ffff:0:0:0/96",
            "::/96",
            "64:ff9b::/96",
            "64:ff9b:1::/48",
            "2001::/32",
            "2002::/16",
            "192.88.99.0/24",
        ),
    ),
    (Objection.MULTICAST, ("224.0.0.0/4", "ff00::/8")),
    (Objection.SITE_LOCAL, ("fec0::/10",)),
    (
        Objection.DOCUMENTATION,
        ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    ),
    (Objection.RESERVED, ("192.0.0.0/24", "240.0.0.0/4", "2001::/23")),
)
"""The first that fits counts."""

_NETWORKS: tuple[tuple[Objection, IPv4Network | IPv6Network], ...] = tuple(
    (objection, ip_network(text)) for objection, texts in _SPECIAL for text in texts
)
_GLOBAL = IPv6Network("2000::/3")
"""All of IPv6 that was ever given out to be reached."""
_ISATAP = 0x5EFE
_ISATAP_MASK = 0xFDFFFFFF
"""Of the third quarter of an address; the bit left out tells whether the IPv4 address in the fourth is unique."""


class Found(NamedTuple):
    """An address of a destination."""

    address: Address
    own: bool
    """An interface of this machine has it."""


def objection(found: Found) -> Objection | None:
    """What speaks against connecting to an address; None: it is a public one of somebody else."""
    address = found.address
    for reason, network in _NETWORKS:
        if address.version == network.version and address in network:
            return reason
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL:
            return Objection.RESERVED
        if (int(address) >> 32) & _ISATAP_MASK == _ISATAP:
            return Objection.EMBEDDED
    return Objection.OWN if found.own else None


def first_objection(
    found: Iterable[Found], *, listed: bool, by_number: bool
) -> tuple[Address, Objection] | None:
    """The first of a destination's addresses that must not be connected to; one is enough to refuse them all.

    Args:
        found: All that its name led to, at one moment.
        listed: The operator opened this destination for private addresses.
        by_number: The destination is an address itself.
    """
    excused = (LISTABLE_BY_NUMBER if by_number else LISTABLE) if listed else frozenset()
    for each in found:
        reason = objection(each)
        if reason is not None and reason not in excused:
            return each.address, reason
    return None
