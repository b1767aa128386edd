"""Where the files of a process's control groups are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wirthforge_host.errors import CgroupMissingError, CgroupUnreachableError

NEEDED = ("cpu", "cpuacct", "memory", "pids", "freezer")
"""Controllers of v1 without which a container can be neither watched nor held; v2 has their work in its own files."""
MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Directories by controller; the unified hierarchy's under the empty name."""

    unified: bool
    """cgroup v2: one hierarchy for all."""
    directories: Mapping[str, Path]

    def of(self, name: str) -> Path:
        """Where the file ``name`` is, or would be."""
        if self.unified:
            return self.directories[""] / name
        controller, _, rest = name.partition(".")
        if rest == "pressure":
            # PSI is kept in the unified hierarchy alone, which may be mounted beside the others.
            return self.directories.get("", Path("/nonexistent")) / name
        if controller == "cgroup":
            return self.directories["freezer"] / name
        return self.directories.get(controller, Path("/nonexistent")) / name


def locate(pid: int, *, container: str, root: Path, proc: Path) -> Places:
    """The places of the process ``pid``, whose group is named after ``container``.

    Reads ``/proc/<pid>/cgroup`` (cgroups(7)): one line ``id:controllers:path`` for each hierarchy.

    Raises:
        CgroupMissingError: The process is gone, or in no group of the container.
        CgroupUnreachableError: Its controllers are not mounted under ``root``.
    """
    paths = _paths(pid, proc)
    unified = "memory" not in paths
    held = paths.get("memory", paths.get("", PurePosixPath("/")))
    if held == PurePosixPath("/") or container not in held.name:
        raise CgroupMissingError(f"process {pid} is in no control group of the container: it ended")
    directories = {
        controller: mount / path.relative_to("/")
        for controller, path in paths.items()
        if (mount := _mount(root, controller)) is not None and ".." not in path.parts
    }
    missing = [name for name in (("",) if unified else NEEDED) if name not in directories]
    if missing:
        what = "the unified hierarchy" if unified else ", ".join(missing)
        raise CgroupUnreachableError(
            f"control groups are not readable: {what} of process {pid} is not mounted under {root}. A host in a "
            "container needs the machine's /sys/fs/cgroup, its process ids and its control group namespace"
        )
    return Places(unified, directories)


def _paths(pid: int, proc: Path) -> dict[str, PurePosixPath]:
    try:
        with (proc / str(pid) / "cgroup").open(encoding="utf-8") as file:
            lines = file.read(MAX_BYTES).splitlines()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise CgroupMissingError(f"there is no process {pid}: its container ended") from error
    except (OSError, ValueError) as error:
        raise CgroupUnreachableError(
            f"the control groups of process {pid} cannot be read: {error}"
        ) from error
    paths: dict[str, PurePosixPath] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = PurePosixPath(path)
    return paths


def _mount(root: Path, controller: str) -> Path | None:
    """Where a hierarchy is mounted: alone, with others (``cpu,cpuacct``), or for v2 at the root or beside v1."""
    if not controller:
        return next((at for at in (root, root / "unified") if (at / "cgroup.controllers").is_file()), None)
    if (root / controller).is_dir():
        return root / controller
    return next((at for at in root.glob("*,*") if controller in at.name.split(",")), None)
