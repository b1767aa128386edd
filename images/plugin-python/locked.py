"""Prints the pip requirement, with hashes, of one package as ``uv.lock`` pins it: ``locked.py NAME``."""

import sys
import tomllib
from pathlib import Path


def requirement(lock: str, name: str) -> str:
    """Gives the pinned requirement of one package.

    Args:
        lock: The text of ``uv.lock``.
        name: The package.

    Returns:
        A line for pip's hash-checking mode.
    """
    package = next((found for found in tomllib.loads(lock)["package"] if found["name"] == name), None)
    if package is None:
        sys.exit(f"uv.lock pins no package {name!r}; add it to the SDK's dependencies and run `uv lock`.")
    hashes = [f"--hash={wheel['hash']}" for wheel in package["wheels"]]
    return " ".join([f"{name}=={package['version']}", *hashes])


if __name__ == "__main__":
    print(requirement(Path("uv.lock").read_text(encoding="utf-8"), sys.argv[1]))
