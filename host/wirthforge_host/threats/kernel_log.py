"""What the kernel says when a system-call filter ended a process: read from its audit records, a pure function.

The record (``AUDIT_SECCOMP``, type 1326; ``audit_seccomp`` in the kernel's ``kernel/auditsc.c``) has two things in it
that a plugin chooses: the name of the process and that of its program. The kernel writes either in quotes, without
quotes in it, or in hexadecimal as soon as it has a space, a quote or a control character in it; so neither can pass
for another field. A record is taken only when all of it is as the kernel writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AUDIT_SECCOMP = 1326
MAX_RECORD_CHARACTERS = 8 * 1024
_CHOSEN = r'(?:"[^"]*"|[0-9A-F]+|\(null\))'
_RECORD = re.compile(
    r"audit\(\d+\.\d+:\d+\): auid=\d+ uid=(?P<uid>\d+) gid=\d+ ses=\d+(?: subj=\S+)? pid=(?P<pid>\d+) "
    rf"comm={_CHOSEN} exe={_CHOSEN} sig=31 arch=(?P<arch>[0-9a-f]+) syscall=(?P<number>\d+) "
    r"compat=\d+ ip=0x[0-9a-f]+ code=0x[0-9a-f]+",
    re.ASCII,
)
"""``sig=31`` is SIGSYS: the filter ended the process. Records of calls that were only refused or logged have 0."""
_LINE = re.compile(
    rf"(?P<priority>\d+),\d+,\d+,[^;]*;audit: type={AUDIT_SECCOMP} (?P<record>[^\n]*)(?:\n .*)*\n?", re.ASCII
)
"""A record of ``/dev/kmsg`` (Documentation/ABI/testing/dev-kmsg): ``priority,sequence,microseconds,flags;text``."""
_FACILITIES = 8
"""A priority below is of facility 0, the kernel's own; the kernel lets no other writer have that."""

X86_64, AARCH64 = "c000003e", "c00000b7"
_SHARED = {
    428: "open_tree",
    429: "move_mount",
    430: "fsopen",
    431: "fsconfig",
    432: "fsmount",
    433: "fspick",
    438: "pidfd_getfd",
    442: "mount_setattr",
    443: "quotactl_fd",
}
_X86_64 = (
    "101 ptrace 103 syslog 153 vhangup 154 modify_ldt 155 pivot_root 161 chroot 163 acct 164 settimeofday 165 mount \
166 umount2 167 swapon 168 swapoff 169 reboot 170 sethostname 171 setdomainname 172 iopl 173 ioperm 175 init_module \
176 delete_module 179 quotactl 227 clock_settime 246 kexec_load 248 add_key 249 request_key 250 keyctl 272 unshare \
298 perf_event_open 304 open_by_handle_at 308 setns 310 process_vm_readv 311 process_vm_writev 312 kcmp \
313 finit_module 320 kexec_file_load 321 bpf 323 userfaultfd"
)
_AARCH64 = (
    "39 umount2 40 mount 41 pivot_root 51 chroot 58 vhangup 60 quotactl 89 acct 97 unshare 104 kexec_load \
105 init_module 106 delete_module 112 clock_settime 116 syslog 117 ptrace 142 reboot 161 sethostname 162 setdomainname \
170 settimeofday 217 add_key 218 request_key 219 keyctl 224 swapon 225 swapoff 241 perf_event_open \
265 open_by_handle_at 268 setns 270 process_vm_readv 271 process_vm_writev 272 kcmp 273 finit_module 280 bpf \
282 userfaultfd 294 kexec_file_load"
)


def _table(numbers: str) -> dict[int, str]:
    words = numbers.split()
    return _SHARED | {int(number): name for number, name in zip(words[::2], words[1::2], strict=True)}


NAMES = {X86_64: _table(_X86_64), AARCH64: _table(_AARCH64)}
"""Calls of the tripwire by architecture (``AUDIT_ARCH_*``) and number."""


@dataclass(frozen=True, slots=True)
class ForbiddenCall:
    """A process that the kernel ended at a system call."""

    uid: int
    """On this machine."""
    pid: int
    number: int
    arch: str

    @property
    def syscall(self) -> str:
        """The call's name; its number where the tripwire has no name for it."""
        known = NAMES.get(self.arch)
        if known is None:
            return f"number {self.number} of architecture {self.arch}"
        return known.get(self.number, f"number {self.number}")


def of_record(record: str) -> ForbiddenCall | None:
    """What an audit record of type :data:`AUDIT_SECCOMP` says; None when it is none of a process that was ended."""
    found = _RECORD.fullmatch(record) if len(record) <= MAX_RECORD_CHARACTERS else None
    if found is None:
        return None
    return ForbiddenCall(int(found["uid"]), int(found["pid"]), int(found["number"]), found["arch"])


def of_line(line: str) -> ForbiddenCall | None:
    """What one record of ``/dev/kmsg`` says; None also when another than the kernel wrote it."""
    found = _LINE.fullmatch(line) if len(line) <= MAX_RECORD_CHARACTERS else None
    if found is None or int(found["priority"]) >= _FACILITIES:
        return None
    return of_record(found["record"])
