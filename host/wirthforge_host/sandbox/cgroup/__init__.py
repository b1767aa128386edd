"""The control groups of one container, read and written in the kernel's own files.

A reading costs microseconds where the engine's API takes a second and milliseconds of its processor time, and a limit
or a freeze takes effect at once. What differs between cgroup v1 and v2 is in ``version1`` and ``version2``: functions
from texts to values and from wishes to texts. ``group`` does the reading and writing for both.
"""

from wirthforge_host.sandbox.cgroup.group import Cgroup
from wirthforge_host.sandbox.cgroup.models import CgroupLimits, DeviceLimits, Pressure, Usage, weight_of

__all__ = ["Cgroup", "CgroupLimits", "DeviceLimits", "Pressure", "Usage", "weight_of"]
