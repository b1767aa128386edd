"""The runtime's own lockdown on this machine's kernel, in processes that nothing else holds back."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from wirthforge_sdk.runtime import lockdown
from wirthforge_sdk.runtime.lockdown import ABSENT, REFUSED, lock

LIBC = ctypes.CDLL(None, use_errno=True)


def in_child(act):
    """What ``act`` returns in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = {"result": act()}
        except BaseException:  # noqa: BLE001 - the parent's test shall fail with it
            told = {"failure": traceback.format_exc()}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        told = json.load(pipe)
    os.waitpid(child, 0)
    assert "failure" not in told, told["failure"]
    return told["result"]


def error_of(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def here():
    return lockdown._architecture()


def test_the_kernel_refuses_what_the_filter_does_even_to_root(tmp_path):
    def act():
        lacking = lock(str(tmp_path))
        errors = {}
        for name, numbers in {**REFUSED, **ABSENT}.items():
            result = LIBC.syscall(ctypes.c_long(numbers[here()]), *[ctypes.c_long(0)] * 6)
            errors[name] = errno.errorcode[ctypes.get_errno()] if result < 0 else "ok"
        return [lacking, errors]

    lacking, errors = in_child(act)
    assert lacking == []
    assert errors == {**dict.fromkeys(REFUSED, "EPERM"), **dict.fromkeys(ABSENT, "ENOSYS")}


def test_files_are_those_of_the_list_and_of_the_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "own").write_text("own")
    program = Path(f"/tmp/{os.getpid()}-program")
    program.touch(0o755)

    def act():
        lock(str(tree))
        return {
            "own": error_of((tree / "own").read_text),
            "scratch": error_of(lambda: program.write_text("x")),
            "program in scratch": error_of(lambda: subprocess.run([program], check=False)),
            "the interpreter": subprocess.run([sys.executable, "-I", "-c", ""], check=False).returncode,
            "users": error_of(Path("/etc/passwd").read_text),
            "root": error_of(lambda: list(Path("/").iterdir())),
            "elsewhere": error_of(lambda: Path(f"/var/tmp/{os.getpid()}").touch()),
        }

    try:
        found = in_child(act)
    finally:
        program.unlink()
    assert found == {
        "own": "ok",
        "scratch": "ok",
        "program in scratch": "EACCES",
        "the interpreter": 0,
        "users": "EACCES",
        "root": "EACCES",
        "elsewhere": "EACCES",
    }


def test_with_destinations_it_connects_to_their_ports_alone_and_listens_on_none(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as granted, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [each.getsockname()[1] for each in (granted, other)]

        def act():
            lock(str(tmp_path), ports[:1])

            def connect(port):
                return error_of(lambda: socket.create_connection(("127.0.0.1", port), 5))

            return [*map(connect, ports), error_of(lambda: socket.socket().bind(("127.0.0.1", 0)))]

        assert in_child(act) == ["ok", "EACCES", "EACCES"]


def test_without_destinations_there_is_no_internet_socket(tmp_path):
    def act():
        lock(str(tmp_path))
        return [
            error_of(lambda family=family: socket.socket(family))
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        ]

    assert in_child(act) == ["EPERM", "EPERM", "ok"]


def test_signals_and_abstract_sockets_stay_among_those_locked_down(tmp_path):
    name = f"\0wirthforge-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as outside:
        outside.bind(name)
        outside.listen()

        def act():
            lock(str(tmp_path))
            return [
                error_of(lambda: os.kill(os.getppid(), 0)),
                error_of(lambda: os.kill(os.getpid(), 0)),
                error_of(lambda: socket.socket(socket.AF_UNIX).connect(name)),
            ]

        assert in_child(act) == ["EPERM", "ok", "EPERM"]


def kernel_of(abi):
    """The kernel that there is, as one of an older ABI says what it can; None: it has no Landlock."""
    call = lockdown._call

    def answered(number, *arguments):
        if number == 444 and arguments[0] is None:
            if abi is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            return abi
        return call(number, *arguments)

    return answered


@pytest.mark.parametrize(
    ("abi", "lacking"),
    [
        (None, ["files, ports, signals: no Landlock (Function not implemented)"]),
        (1, ["files, ports, signals: Landlock ABI 1 is too old"]),
        (
            3,
            [
                "TCP ports: Landlock ABI 3 is too old",
                "signals and abstract sockets: Landlock ABI 3 is too old",
            ],
        ),
        (5, ["signals and abstract sockets: Landlock ABI 5 is too old"]),
        (6, []),
    ],
)
def test_what_an_older_kernel_cannot_enforce_is_told_and_the_rest_holds(tmp_path, monkeypatch, abi, lacking):
    monkeypatch.setattr(lockdown, "_call", kernel_of(abi))

    def act():
        return [
            lock(str(tmp_path)),
            error_of(Path("/etc/passwd").read_text),
            error_of(lambda: os.kill(os.getppid(), 0)),
            error_of(lambda: socket.socket(socket.AF_INET)),
        ]

    files, signals = (abi or 0) >= 2, (abi or 0) >= 6
    assert in_child(act) == [lacking, "EACCES" if files else "ok", "EPERM" if signals else "ok", "EPERM"]


def test_a_hidden_process_has_but_its_standard_streams_and_is_not_dumpable():
    def act():
        inherited = os.dup(0)
        child = os.fork()
        if child == 0:
            lockdown.hide()
            closed = error_of(lambda: os.fstat(inherited)) == "EBADF"
            os._exit(0 if closed and LIBC.prctl(3, 0, 0, 0, 0) == 0 else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_child(act) == 0
