"""Master keys in files of the data directory that only the host reads."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from pathlib import Path

from wirthforge_host.errors import MasterKeyMissingError, MasterKeyWrongError, SealBrokenError
from wirthforge_host.keyring.sealing import KEY_BYTES, Key, new_secret
from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.files import sync_directory, write_private


class FileMasterKey:
    """Each key is 32 random bytes in ``<directory>/<id>.key``, mode 0600. See ``ports.MasterKey``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def create(self) -> str:
        """Writes a new file."""
        master = secrets.token_hex(8)
        try:
            await asyncio.to_thread(self._create, master)
        except OSError as error:
            raise UnavailableError(
                f"no master key can be written to {self._directory}: {error.strerror}"
            ) from error
        return master

    async def wrap(self, master: str, secret: bytes, place: str) -> bytes:
        """Encrypts with the key in the file. It is not used often enough for its uses to be counted."""
        key = await asyncio.to_thread(self._read, master)
        return key.seal((place,), secret)

    async def unwrap(self, master: str, wrapped: bytes, place: str) -> bytes:
        """Decrypts with the key in the file."""
        key = await asyncio.to_thread(self._read, master)
        try:
            return key.open((place,), wrapped)
        except SealBrokenError:
            raise MasterKeyWrongError(
                f"the master key {self._path(master)} is not the one that the database was written with, or the table "
                "keyring_roots was altered: restore this file, or the database, from a backup of the same time",
                path=str(self._path(master)),
            ) from None

    async def retire(self, master: str) -> None:
        """Removes the file."""
        try:
            await asyncio.to_thread(self._remove, master)
        except OSError as error:
            raise UnavailableError(
                f"{self._path(master)} is not used any more and cannot be removed: {error.strerror}"
            ) from error

    def _path(self, master: str) -> Path:
        return self._directory / f"{master}.key"

    def _create(self, master: str) -> None:
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700)
            sync_directory(self._directory.parent)
        write_private(self._path(master), new_secret(), replace=False)

    def _read(self, master: str) -> Key:
        path = self._path(master)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                secret = file.read(KEY_BYTES + 1)
        except OSError as error:
            raise MasterKeyMissingError(
                f"the master key {path} cannot be read ({error.strerror}): restore this file from your backup. Without "
                "it nothing that plugins stored can be read; docs/storage.md tells how to begin anew",
                path=str(path),
            ) from error
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise MasterKeyWrongError(
                f"the master key {path} may be read by others than its owner: chmod 600", path=str(path)
            )
        if len(secret) != KEY_BYTES:
            raise MasterKeyWrongError(
                f"the master key {path} has not {KEY_BYTES} bytes: restore this file from your backup",
                path=str(path),
            )
        return Key(secret, f"master:{master}", 0)

    def _remove(self, master: str) -> None:
        self._path(master).unlink(missing_ok=True)
        sync_directory(self._directory)
