"""Byte-code of releases, made in a blank sandbox of the image that runs them and kept beside their files.

What a sandbox sends is checked in form only: so many bytes for a module that the release has. It goes back to where it
came from, sandboxes of the same release and image, and nowhere else; the host never loads any of it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from wirthforge_host.errors import PluginFailedError
from wirthforge_sdk.contracts.bridge import ROOTS

GROWTH, ALLOWANCE_BYTES = 16, 64 * 1024
"""Byte-code of a module is at most so many times its source, and so much more."""
MAX_BYTES = 64 * 1024 * 1024
"""Of a release's."""
_TAG = re.compile(r"[a-z]+-\d{2,4}")


class _Head(msgspec.Struct):
    path: str
    tag: str
    bytes: int


_head = msgspec.json.Decoder(_Head).decode


async def received(reader: asyncio.StreamReader, tree: Path) -> dict[PurePosixPath, bytes]:
    """What a sandbox sends of a release whose files are in ``tree``: byte-code by where it belongs in a tree.

    Raises:
        PluginFailedError: It sends what is none, or too much of it, or ends before it is done.
    """
    bounds = await asyncio.to_thread(_bounds, tree)
    found: dict[PurePosixPath, bytes] = {}
    left = MAX_BYTES
    try:
        while (head := _head(await reader.readuntil())).path:
            bound = min(left, bounds.pop(head.path, 0))
            if not 0 < head.bytes <= bound or not _TAG.fullmatch(head.tag):
                raise PluginFailedError(
                    f"it sends {head.bytes} bytes for {head.path[:100]!r}, of {bound} at most"
                )
            path = PurePosixPath(head.path)
            place = path.parent / "__pycache__" / f"{path.stem}.{head.tag}.pyc"
            found[place] = await reader.readexactly(head.bytes)
            left -= head.bytes
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.MsgspecError, OSError) as error:
        raise PluginFailedError(f"it does not send byte-code: {error}") from error
    return found


def keep(made: Mapping[PurePosixPath, bytes], directory: Path) -> None:
    """Writes it below the new ``directory``, read-only; all or nothing. Blocks."""
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for place, code in made.items():
        file = partial / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(code)
        file.chmod(0o444)
    partial.rename(directory)


def _bounds(tree: Path) -> dict[str, int]:
    """How much byte-code there may be of each module."""
    modules = (
        Path(directory, name)
        for root in ROOTS
        for directory, _, names in os.walk(tree / root)
        for name in names
        if name.endswith(".py")
    )
    return {
        module.relative_to(tree).as_posix(): module.stat().st_size * GROWTH + ALLOWANCE_BYTES
        for module in modules
    }
