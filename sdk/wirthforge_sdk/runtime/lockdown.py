"""The second wall: a process gives up for good what no plugin needs, after our imports and before its code.

The sandbox is closed without it. It is there for the day one of the engine's walls is not: an engine that ignores
the seccomp profile (gVisor does), a mask that is missing, a file that should not be in the image.

Three things, all inherited by whatever a plugin starts, none of which can be undone:

- *Undumpable*: children of the same user cannot read or trace the process; prctl(2), PR_SET_DUMPABLE.
- *Landlock*: files, TCP ports, signals and abstract sockets by allow-list; landlock(7), up to ABI 7.
- *A filter of system calls*: what leads out of a sandbox is refused; seccomp(2).
"""

from __future__ import annotations

import errno
import os
import sys
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_USE_ERRNO, CFuncPtr, _SimpleCData, dlopen, dlsym, get_errno
from collections.abc import Collection, Iterator
from stat import S_ISDIR
from struct import Struct, pack


# From what ctypes is made of: its own import takes 2 ms at every cold start, for types that nobody asks for here.
class _Long(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "l"


class _Bytes(_SimpleCData):  # type: ignore[type-arg]
    _type_ = "z"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_SYSCALL = _Function(dlsym(dlopen(None, 0), "syscall"))  # type: ignore[arg-type]

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The same on every architecture."""
_X86_64, _AARCH64 = 0, 1
_ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}
_AUDIT_NAMES = (0xC000003E, 0xC00000B7)
"""AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64: what a filter sees; linux/audit.h."""
_PRCTL, _SECCOMP, _CLONE, _SOCKET = (157, 167), (317, 277), (56, 220), (41, 198)
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38

# Landlock's rights to files, linux/landlock.h.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHARACTER_DEVICE, _MAKE_BLOCK_DEVICE = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_ALL = (1 << 16) - 1
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
"""A rule for what is no directory may name these only."""
_READ = _READ_FILE | _READ_DIRECTORY
_CODE = _READ | _EXECUTE
_DEVICE = _READ_FILE | _WRITE_FILE | _TRUNCATE
_SCRATCH = _ALL & ~(_EXECUTE | _IOCTL | _MAKE_CHARACTER_DEVICE | _MAKE_BLOCK_DEVICE)
"""To write freely, but neither programs nor devices."""

PLACES = {
    **dict.fromkeys(("/usr", "/lib", "/lib64", "/opt"), _CODE),
    # What the C library, ssl and the standard library look at; nothing else in /etc is a plugin's business.
    "/etc/hosts": _READ,
    "/etc/ld.so.cache": _READ,
    "/etc/localtime": _READ,
    "/etc/mime.types": _READ,
    "/etc/nsswitch.conf": _READ,
    "/etc/resolv.conf": _READ,
    "/etc/ssl": _READ,
    # Whole, because children have entries of their own. Those of process 1 are closed by its being undumpable, and by
    # Landlock, which lets nobody look into a process that is less restricted than himself.
    "/proc": _READ,
    "/dev/null": _DEVICE,
    "/dev/zero": _DEVICE,
    "/dev/full": _DEVICE,
    "/dev/random": _READ,
    "/dev/urandom": _READ,
    "/dev/shm": _SCRATCH,  # noqa: S108 - the container's own
    "/tmp": _SCRATCH,  # noqa: S108
}
"""What a plugin may do where, beside reading and running its own tree."""

_FILES, _PORTS = 1, 2
"""Types of a rule."""
_BIND_AND_CONNECT, _CONNECT = 0b11, 0b10
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11
_UNLOGGED = 0b101
"""No line in the kernel's log for each refusal, of its own or of a domain below: a loop of refusals would have the
kernel work outside the sandbox's limits. LANDLOCK_RESTRICT_SELF_LOG_SAME_EXEC_OFF and …_SUBDOMAINS_OFF."""
_WITH_RENAMES, _WITH_PORTS, _WITH_SCOPES, _WITH_LOG_FLAGS = 2, 4, 6, 7
"""The ABI that brought each; the first one would refuse every rename from one directory into another."""

REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "memfd_secret": (447, 447),
}
"""System calls that answer EPERM, with their numbers on x86-64 and aarch64."""
ABSENT = {
    "clone3": (435, 435),
    "execveat": (322, 281),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
}
"""Those that answer ENOSYS, so that libraries fall back: what they do lies in memory, where no filter sees it."""

_NEW_NAMESPACES = 0x7E020000
_FIRST_X32_CALL = 0x40000000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10

# The filter's machine, linux/filter.h and linux/seccomp.h: load a word, compare the accumulator, return.
_INSTRUCTION = Struct("<HBBI")
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_NO_SECCOMP = (errno.ENOSYS, errno.EINVAL)


def hide() -> None:
    """Closes what was inherited beside the standard streams, and closes the process to others of its user.

    Children that fork are undumpable too; a program that is executed is dumpable again.
    """
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    here = _architecture()
    if here is not None:
        _call(_PRCTL[here], _PR_SET_DUMPABLE, 0)


def lock(tree: str, ports: Collection[int] = ()) -> list[str]:
    """Locks the calling thread down, and all that it starts from now on; there must be no other.

    Args:
        tree: The plugin's own directory, which it may read and run.
        ports: TCP ports it may connect to. Without any it gets no socket but Unix-domain ones.

    Returns:
        What the kernel cannot enforce, in words; empty: all of it holds.

    Raises:
        OSError: The kernel can, and refused. Nothing may run then.
    """
    here = _architecture()
    if here is None:
        return ["anything: this system is neither Linux on x86-64 nor on aarch64"]
    _call(_PRCTL[here], _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # The filter last: it refuses what was needed up to here.
    return [*_confine(tree, ports), *_filter(here, with_network=bool(ports))]


def _architecture() -> int | None:
    return _ARCHITECTURES.get(os.uname().machine) if sys.platform == "linux" else None


def _call(number: int, *arguments: int | bytes | None) -> int:
    # A bare int would be passed as 32 bits.
    passed = (_Long(each) if isinstance(each, int) else _Bytes(each) for each in arguments)
    result: int = _SYSCALL(_Long(number), *passed)
    if result < 0:
        code = get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _confine(tree: str, ports: Collection[int]) -> list[str]:
    try:
        abi = _call(_CREATE_RULESET, None, 0, 1)
    except OSError as error:
        return [f"files, ports, signals: no Landlock ({error.strerror})"]
    if abi < _WITH_RENAMES:
        return [f"files, ports, signals: Landlock ABI {abi} is too old"]
    handled = handled_by(abi)
    rules = _call(_CREATE_RULESET, pack("QQQ", *handled), 24, 0)
    try:
        for path, rights in _places(tree).items():
            _permit(rules, path, rights & handled[0])
        if handled[1]:
            for port in ports:
                _call(_ADD_RULE, rules, _PORTS, pack("QQ", _CONNECT, port), 0)
        _call(_RESTRICT_SELF, rules, _UNLOGGED if abi >= _WITH_LOG_FLAGS else 0)
    finally:
        os.close(rules)
    lacking = {"TCP ports": handled[1], "signals and abstract sockets": handled[2]}
    return [f"{name}: Landlock ABI {abi} is too old" for name, bits in lacking.items() if not bits]


def handled_by(abi: int) -> tuple[int, int, int]:
    """What a ruleset restricts on a kernel of this ABI: rights to files, rights to ports, scopes; bits."""
    files = _ALL & ~(_IOCTL if abi < 5 else 0) & ~(_TRUNCATE if abi < 3 else 0)  # noqa: PLR2004 - ABIs
    ports = _BIND_AND_CONNECT if abi >= _WITH_PORTS else 0
    return files, ports, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= _WITH_SCOPES else 0


def _places(tree: str) -> dict[str, int]:
    # In the image the interpreter and all packages lie below /usr; elsewhere, as in tests, where they do.
    return dict.fromkeys((*sys.path, sys.prefix, sys.base_prefix, tree), _CODE) | PLACES


def _permit(rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # nothing there, or nothing that this user could reach: no rule is the stricter one
    try:
        directory = S_ISDIR(os.fstat(place).st_mode)
        _call(_ADD_RULE, rules, _FILES, pack("=Qi", rights if directory else rights & _OF_FILES, place), 0)
    finally:
        os.close(place)


def _filter(here: int, *, with_network: bool) -> list[str]:
    program = program_for(here, with_network=with_network)
    # struct sock_fprog: how many, and where.
    told = pack("H0P", len(program) // _INSTRUCTION.size) + bytes(_Bytes(program))
    try:
        _call(_SECCOMP[here], 1, 0, told)
    except OSError as error:
        if error.errno not in _NO_SECCOMP:
            raise
        return [f"system calls: no seccomp filters ({error.strerror})"]
    return []


def program_for(here: int, *, with_network: bool) -> bytes:
    """The filter of an architecture (0: x86-64, 1: aarch64), as the kernel takes it."""
    return b"".join(_INSTRUCTION.pack(*each) for each in _instructions(here, with_network))


def _instructions(here: int, with_network: bool) -> Iterator[tuple[int, int, int, int]]:  # noqa: FBT001 - see program_for
    """Code, how many to skip if true, how many if false, and the constant."""
    refuse = (_RETURN, 0, 0, _FAIL | errno.EPERM)
    families = (_AF_UNIX, _AF_INET, _AF_INET6) if with_network else (_AF_UNIX,)
    yield from ((_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, _AUDIT_NAMES[here]), (_RETURN, 0, 0, _KILL))
    yield from ((_LOAD, 0, 0, _NUMBER_AT), (_AT_LEAST, 0, 1, _FIRST_X32_CALL), (_RETURN, 0, 0, _KILL))
    for numbers in ABSENT.values():
        yield from ((_EQUAL, 0, 1, numbers[here]), (_RETURN, 0, 0, _FAIL | errno.ENOSYS))
    for numbers in REFUSED.values():
        yield from ((_EQUAL, 0, 1, numbers[here]), refuse)
    # The kernel reads these first arguments as 32 bits, or knows no flag above them: their low word is all of them.
    argument, allow = (_LOAD, 0, 0, _FIRST_ARGUMENT_AT), (_RETURN, 0, 0, _ALLOW)
    yield from ((_EQUAL, 0, 4, _CLONE[here]), argument, (_ANY_BIT, 0, 1, _NEW_NAMESPACES), refuse, allow)
    yield from ((_EQUAL, 0, 4, _PRCTL[here]), argument, (_EQUAL, 0, 1, _PR_SET_DUMPABLE), refuse, allow)
    yield from ((_EQUAL, 0, 2 + 2 * len(families), _SOCKET[here]), argument)
    for family in families:
        yield from ((_EQUAL, 0, 1, family), allow)
    yield from (refuse, allow)
