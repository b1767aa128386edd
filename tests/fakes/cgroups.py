"""Control groups as files: recorded from a kernel (v1), and written by its manual (v2)."""

from __future__ import annotations

from pathlib import Path

from wirthforge_host.sandbox.cgroup import Cgroup, CgroupLimits

FIXTURES = Path(__file__).parent.parent / "unit" / "host" / "fixtures"
CONTAINERS = {
    "cgroup_v1": "e39b75c5d124dde4c5103ec9f645c6e6257813bb022bee38d0b50e4bc907b534",
    "cgroup_v2": "4f1c2d7be01a9e9d3d0b7a55c2c7f0aa52d3c1c8a6b9d5e4f3a2b1c0d9e8f7a6",
}
PID = 4242


class Tree:
    """A recorded tree laid out as files."""

    def __init__(self, name: str, at: Path) -> None:
        self.container = CONTAINERS[name]
        self._files: dict[str, Path] = {}
        self.root, self.proc = at / "sys", at / "proc"
        for part in (FIXTURES / f"{name}.txt").read_text().split("=== ")[1:]:
            path, _, content = part.partition("\n")
            (at / path).parent.mkdir(parents=True, exist_ok=True)
            (at / path).write_text(content)

    def open(self) -> Cgroup:
        """As the host would, by the process."""
        return Cgroup.of_process(PID, container=self.container, root=self.root, proc=self.proc)

    def file(self, name: str) -> Path:
        """Where the container's file of that name is."""
        if name not in self._files:
            (self._files[name],) = self.root.rglob(f"*{self.container}*/{name}")
        return self._files[name]

    def limits(self) -> CgroupLimits:
        """In force now."""
        group = self.open()
        try:
            return group.limits()
        finally:
            group.close()

    def use(self, *, cpu_ns: int = 0, memory_bytes: int = 0, pids: int = 0, oom_kills: int = 0) -> None:
        """Has a v1 container have used more of the processor, and hold so much."""
        used = cpu_ns or int(any((memory_bytes, pids, oom_kills)))  # nothing happens without a processor
        total = int(self.file("cpuacct.usage").read_text()) + used
        self.file("cpuacct.usage").write_text(f"{total}\n")
        if memory_bytes:
            self.file("memory.usage_in_bytes").write_text(f"{memory_bytes}\n")
        if pids:
            self.file("pids.current").write_text(f"{pids}\n")
        if oom_kills:
            self.file("memory.oom_control").write_text(
                f"oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kills}\n"
            )
