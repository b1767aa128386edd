"""What is really in force for a container: the kernel's own files, compared with what was asked of the engine.

The engine's answer says what it recorded. The kernel's files say what is so, whoever made it so, and whatever the
engine, the runtime below it or somebody with rights on the machine did since.

What the kernel does not tell: which seccomp filter is loaded (only that there is one), and whether a namespace that is
not the machine's is another container's. For these the engine's word stands.
"""

from wirthforge_host.sandbox.kernel.facts import KernelFacts, compare, expected
from wirthforge_host.sandbox.kernel.observation import observe

__all__ = ["KernelFacts", "compare", "expected", "observe"]
