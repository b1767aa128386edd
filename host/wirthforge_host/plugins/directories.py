"""Directories in which every entry is somebody's, or goes."""

from __future__ import annotations

import shutil
from collections.abc import Container
from pathlib import Path

import structlog

log = structlog.get_logger()


def sweep(directory: Path, keep: Container[str]) -> None:
    """Removes each entry of ``directory`` that is not in ``keep``, whatever it is. What cannot be removed is told."""
    for entry in list(directory.iterdir()) if directory.is_dir() else []:
        if entry.name in keep:
            continue
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError as error:
            # Litter is no reason to run nothing.
            log.warning("sweep.left", path=str(entry), error=error.strerror)
