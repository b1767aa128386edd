"""What holds for every suite."""

from hypothesis import settings

# A deadline per example measures the machine's other work, not ours; the timeouts of the suites bound a hang.
settings.register_profile("house", deadline=None)
settings.load_profile("house")
