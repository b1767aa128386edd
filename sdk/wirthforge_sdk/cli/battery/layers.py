"""The layers that stop attacks, as ``docs/sandbox.md`` knows them."""

from __future__ import annotations

from typing import Final

LAYERS: Final = {
    "seccomp": "the allow-list of system calls",
    "capabilities": "no capabilities, in any set",
    "no new privileges": "no program gives new rights",
    "namespace": "processes, mounts, network, names and users of its own to see",
    "user id": "a user of its own, who owns nothing",
    "read-only root": "nothing that lasts can be written",
    "masked path": "files of /proc and /sys that tell of the machine, or set it, are not there",
    "noexec": "what was written cannot be executed",
    "nodev": "nodes for devices do not open",
    "no devices": "the devices are not there",
    "device cgroup": "the devices that may be opened",
    "sealed memory": "files in memory cannot be executed",
    "tmpfs bound": "what is kept in memory ends at a size and a number of names",
    "memory cgroup": "memory, the kernel's on its behalf included",
    "pids cgroup": "processes and threads",
    "cpu quota": "the processor",
    "io limit": "reads and writes of the disk",
    "ulimit": "descriptors, file sizes, locked memory, queued signals",
    "no network": "no way out but its own loopback",
    "engine unreachable": "no socket of an engine or a service of the machine",
    "image": "nothing of use is in the image",
    "empty environment": "no secret is in the environment",
    "runner": "the first process, which holds nothing of value",
    "runtime lockdown": "what the runtime gave up before the plugin's code ran",
    "kernel": "this kernel itself",
    "bridge": "the host's end of the bridge: bounds, forms, identity",
    "permission": "what the operator granted",
    "storage quota": "what may be kept with the host",
    "supervision": "the host ends all of an instance, and starts another",
}
