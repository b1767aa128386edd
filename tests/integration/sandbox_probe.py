"""Runs inside a sandbox, looks around, tries to get out, and reports over the bridge. Standard library only.

Its argument names what to do; the report is one JSON document. The system call numbers are those of x86-64.
"""

import asyncio
import concurrent.futures
import ctypes
import errno
import json
import mmap
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

X32 = 0x40000000
CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET = 0x10000000, 0x00020000, 0x40000000
ATTACKS: dict[str, tuple[int, ...]] = {
    "ptrace a child": (101, 0, 0, 0, 0),
    "mount": (165, 0, 0, 0, 0, 0),
    "umount2": (166, 0, 0),
    "pivot_root": (155, 0, 0),
    "chroot": (161, 0),
    "open_tree": (428, -100, 0, 1),
    "move_mount": (429, -1, 0, -1, 0, 0),
    "fsopen": (430, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    "unshare a user namespace": (272, CLONE_NEWUSER),
    "unshare a mount namespace": (272, CLONE_NEWNS),
    "unshare a network namespace": (272, CLONE_NEWNET),
    "clone into a user namespace": (56, CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
    "setns": (308, 0, 0),
    "keyctl": (250, 0, 0, 0),
    "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 1),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0),
    "init_module": (175, 0, 0, 0),
    "finit_module": (313, 0, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0, 0, 0, 0),
    "swapon": (167, 0, 0),
    "acct": (163, 0),
    "sethostname": (170, 0, 0),
    "syslog": (103, 10, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0),
    "name_to_handle_at": (303, -100, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0),
    "quotactl": (179, 0, 0, 0, 0),
    "personality": (135, 0x0040000),
    "iopl": (172, 3),
    "ioperm": (173, 0, 1, 1),
    "modify_ldt": (154, 0, 0, 0),
    "memfd_secret": (447, 0),
    "memfd that may be executed": (319, 0, 0),
    "memfd of huge pages": (319, 0, 0xC),
    "shmget": (29, 0, 4096, 0o1600),
    "msgget": (68, 0, 0o1600),
    "semget": (64, 0, 1, 0o1600),
    "mq_open": (240, 0, 0o102, 0o600, 0),
    "setuid": (105, 0),
    "setgroups": (116, 0, 0),
    "capset": (126, 0, 0),
    "settimeofday": (164, 0, 0),
    "clock_settime": (227, 0, 0),
    "adjtimex": (159, 0),
    "sync": (162,),
    "mincore": (27, 0, 0, 0),
    "setxattr": (188, 0, 0, 0, 0, 0),
    "chown": (92, 0, 0, 0),
    "io_setup": (206, 1, 0),
    "move_pages": (279, 0, 0, 0, 0, 0, 0),
    "set_mempolicy": (238, 0, 0, 0),
    "make a device": (133, 0, 0o020666, 0x0103),
    "push into a terminal (TIOCSTI)": (16, 0, 0x5412, 0),
    "push with high bits set (TIOCSTI)": (16, 0, 0x100005412, 0),
    "write a console (TIOCLINUX)": (16, 0, 0x541C, 0),
    "prctl that sets memory maps": (157, 35, 0, 0, 0, 0),
    "prctl that takes ambient capabilities": (157, 47, 2, 0, 0, 0),
    "prctl that allows to be traced": (157, 0x59616D61, -1, 0, 0, 0),
}
ABSENT = {
    "clone3": (435, 0, 0),
    "execveat": (322, -1, 0, 0, 0, 0),
    "io_uring_setup": (425, 1, 0),
    "io_uring_enter": (426, -1, 0, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0),
}
FAMILIES = {
    "INET": 2,
    "AX25": 3,
    "INET6": 10,
    "NETLINK": 16,
    "PACKET": 17,
    "CAN": 29,
    "TIPC": 30,
    "BLUETOOTH": 31,
    "ALG": 38,
    "VSOCK": 40,
    "XDP": 44,
}


def errno_of_call(number: int, *arguments: int) -> str:
    """Makes a system call and names its error; ``ok`` when it has none."""
    ctypes.set_errno(0)
    result = LIBC.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    if number == ATTACKS["clone into a user namespace"][0] and result == 0:
        os._exit(0)  # the attack worked, and this is its child
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def errno_of(act: Callable[[], object]) -> str:
    """Does something and names its error; ``ok`` when it has none."""
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def signal_of_foreign_call() -> int:
    """What kills a child that calls through another architecture's entry."""
    child = os.fork()
    if child == 0:
        LIBC.syscall(ctypes.c_long(X32 | 39))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def status(pid: str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def mounts() -> list[dict[str, str]]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        fields = left.split()
        kind, source, _ = right.split(" ", 2)
        found.append({"target": fields[4], "options": fields[5], "kind": kind, "source": source})
    return found


def fill_tmp() -> int:
    written = 0
    with Path("/tmp/filler").open("wb", buffering=0) as file:
        try:
            while written < 1 << 30:
                written += file.write(b"x" * 65536)
        except OSError:
            pass
    Path("/tmp/filler").unlink()
    return written


def files_in_tmp() -> int:
    made: list[Path] = []
    try:
        while len(made) < 100_000:
            path = Path(f"/tmp/many-{len(made)}")
            path.touch()
            made.append(path)
    except OSError:
        pass
    for path in made:
        path.unlink()
    return len(made)


def run_from_tmp() -> object:
    copied = shutil.copy(sys.executable, "/tmp/python")
    try:
        return subprocess.run([copied, "-V"], check=False)
    finally:
        Path(copied).unlink()


def map_executable_from_tmp() -> None:
    with Path("/tmp/code").open("w+b") as file:
        file.write(b"\xc3" * 4096)
        file.flush()
        mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)


def look() -> dict[str, object]:
    """Facts about where it finds itself, and what each attempt to get further gives."""
    writes = ["/", "/etc", "/plugin", "/run/wirthforge", "/run", "/dev", "/opt", "/var", "/proc/sys/kernel"]
    return {
        "status": status(),
        "interfaces": [
            line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]
        ],
        "mounts": mounts(),
        "environment": dict(os.environ),
        "hostname": socket.gethostname(),
        "directory": str(Path.cwd()),
        "resolver": Path("/etc/resolv.conf").read_text(),
        "sys": [path.name for path in Path("/sys").iterdir()],
        "proc": {name: len(Path(f"/proc/{name}").read_bytes()) for name in ("kallsyms", "keys", "cmdline")},
        "processes": [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()],
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
        "limits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            for name in ("CORE", "FSIZE", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RTPRIO", "STACK")
        },
        "writes": {path: errno_of(Path(path, "written").touch) for path in writes},
        "tmp_bytes": fill_tmp(),
        "tmp_files": files_in_tmp(),
        "run_from_tmp": errno_of(run_from_tmp),
        "map_executable_from_tmp": errno_of(map_executable_from_tmp),
        "huge_file": errno_of(lambda: os.truncate(os.open("/tmp/huge", os.O_CREAT | os.O_WRONLY), 1 << 40)),
        "attacks": {name: errno_of_call(*call) for name, call in ATTACKS.items()},
        "absent": {name: errno_of_call(*call) for name, call in ABSENT.items()},
        "sockets": sockets(),
        "foreign_call": signal_of_foreign_call(),
        "suid": [
            str(path) for path in Path("/usr").rglob("*") if path.is_file() and path.stat().st_mode & 0o6000
        ],
    }


def sockets(protocols: tuple[int, ...] = (0,)) -> dict[str, str]:
    """What making a socket of each kind gives, by family, kind and protocol."""
    return {
        f"{name} {kind.name} {protocol}": errno_of(
            lambda family=family, kind=kind, protocol=protocol: socket.socket(family, kind, protocol).close()
        )
        for name, family in FAMILIES.items()
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET)
        for protocol in protocols
    }


def converse() -> dict[str, object]:
    """What can be done with the network of a sandbox that asked for connections."""
    told: dict[str, object] = {"environment": dict(os.environ), "hosts": Path("/etc/hosts").read_text()}
    [(_, _, _, _, address)] = socket.getaddrinfo("api.example.org", 443, type=socket.SOCK_STREAM)
    with (
        socket.create_server(address) as listener,
        socket.create_connection(("api.example.org", 443), 5) as client,
    ):
        server, _ = listener.accept()
        with server:
            client.sendall(b"hello")
            told |= {"address": address, "heard": server.recv(5).decode()}
    told["outside"] = {
        host: errno_of(lambda host=host: socket.create_connection((host, 80), 5))
        for host in ("192.0.2.1", "169.254.169.254", "172.17.0.1")
    }
    return told | {"sockets": sockets(protocols=(0, 1, socket.IPPROTO_TCP, socket.IPPROTO_SCTP, 262))}


def trip() -> dict[str, object]:
    """How a child ends that makes a dangerous call: its exit code, or minus the signal that killed it."""
    ends: dict[str, object] = {}
    for name, call in ATTACKS.items():
        child = os.fork()
        if child == 0:
            errno_of_call(*call)
            os._exit(0)
        ends[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ends


def in_threads() -> object:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(abs, range(100)))


def in_asyncio() -> object:
    async def both() -> object:
        process = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "print(1)", stdout=-1)
        out, _ = await process.communicate()
        return out + await asyncio.to_thread(bytes, 1)

    return asyncio.run(both())


def in_children() -> object:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, range(10))


def in_spawned_child() -> object:
    # As a script runs again in a spawned child, an import must do nothing: see the last lines.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(abs, range(3))


def in_subprocess() -> object:
    child = subprocess.run(
        [sys.executable, "-I", "-c", "print(6*7)"], capture_output=True, check=True, timeout=30
    )
    return child.stdout


def in_database() -> object:
    connection = sqlite3.connect("/tmp/base.sqlite")
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(n)")
    connection.execute("insert into t values(1)")
    connection.commit()
    return connection.execute("select sum(n) from t").fetchall()


def in_files() -> object:
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "a").write_text("a")
        shutil.copy2(here / "a", here / "b")
        os.mkfifo(here / "pipe")
        os.link(here / "a", here / "c")
        (here / "d").symlink_to("a")
        (here / "b").rename(here / "e")
        (here / "e").chmod(0o600)
        return sorted(path.name for path in here.iterdir())


def in_memory_file() -> object:
    file = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | 0x8)
    os.write(file, b"x" * 10_000)
    return os.fstat(file).st_size


def in_shared_memory() -> object:
    from multiprocessing import shared_memory  # noqa: PLC0415 starts a tracker process only here

    block = shared_memory.SharedMemory(create=True, size=4096)
    block.close()
    block.unlink()
    return True


def in_signals() -> object:
    caught = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: caught.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    return caught.wait(10)


def in_pollers() -> object:
    left, right = socket.socketpair()
    with select.epoll() as poller, left, right:
        poller.register(right, select.EPOLLIN)
        left.sendall(b"x")
        return poller.poll(10)


WORK = (
    in_threads,
    in_asyncio,
    in_children,
    in_spawned_child,
    in_subprocess,
    in_database,
    in_files,
    in_memory_file,
    in_shared_memory,
    in_signals,
    in_pollers,
    ssl.create_default_context,
)


def work() -> dict[str, object]:
    """What ordinary plugins do, each with its error or ``ok``."""
    done: dict[str, object] = {}
    for task in WORK:
        try:
            done[task.__name__] = "ok" if task() else "nothing"
        except Exception as error:  # noqa: BLE001 every failure is the report
            done[task.__name__] = repr(error)
    return done


def breed() -> dict[str, object]:
    """Makes children until it may not."""
    children = []
    reason = ""
    while len(children) < 1000 and not reason:
        try:
            child = os.fork()
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
            continue
        if child == 0:
            signal.pause()
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {"children": len(children), "reason": reason}


def used_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def burn() -> dict[str, object]:
    """Computes for a while in two processes, and tells the share of a core they got together."""
    began, before_s = time.monotonic(), used_s()
    child = os.fork()
    while time.monotonic() - began < 3:
        pass
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return {"share": (used_s() - before_s) / (time.monotonic() - began)}


def read_direct() -> dict[str, object]:
    """Reads the image's largest file past the page cache for a while, and tells how fast that went."""
    largest = max(
        (path for path in Path("/opt").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    file = os.open(largest, os.O_RDONLY | os.O_DIRECT)
    size = largest.stat().st_size
    block = mmap.mmap(-1, 1 << 18)  # aligned, which O_DIRECT asks for
    done = offset = 0
    began = time.monotonic()
    while time.monotonic() - began < 3:
        done += (got := os.preadv(file, [block], offset))
        offset = offset + got if got == len(block) and offset + got < size else 0
    return {"bytes_per_s": done / (time.monotonic() - began), "size": size}


def swell() -> dict[str, object]:
    """Takes memory until it is stopped."""
    held = []
    while True:
        held.append(b"x" * (1 << 20))


def main() -> None:
    task = {task.__name__: task for task in (look, work, converse, trip, breed, burn, read_direct, swell)}[
        sys.argv[1]
    ]
    try:
        report = task()
    except Exception as error:  # noqa: BLE001 there is no other way to tell
        report = {"failure": "".join(traceback.format_exception(error))}
    with socket.socket(socket.AF_UNIX) as bridge:
        bridge.connect("/run/wirthforge/report.sock")
        bridge.sendall(json.dumps(report).encode())


if __name__ == "__main__":
    main()
