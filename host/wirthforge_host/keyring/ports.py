"""What the keyring needs of whoever keeps the master key: a file, or a key management service."""

from __future__ import annotations

from typing import Protocol


class MasterKey(Protocol):
    """Master keys, each with an id that is text of at most 64 characters. None of them ever leaves its keeper.

    Every method may go over a network: the keyring calls none of them inside a transaction.
    """

    async def create(self) -> str:
        """Makes a key that outlives a power cut from now on; returns its id.

        Raises:
            UnavailableError: It could not be kept.
        """

    async def wrap(self, master: str, secret: bytes, place: str) -> bytes:
        """Encrypts ``secret`` so that it opens for the same ``place`` alone (at most 1 KiB of either).

        Raises:
            MasterKeyMissingError: There is no such key; the message says where it is expected.
            UnavailableError: Its keeper does not answer.
        """

    async def unwrap(self, master: str, wrapped: bytes, place: str) -> bytes:
        """What :meth:`wrap` encrypted.

        Raises:
            MasterKeyMissingError: As :meth:`wrap`.
            MasterKeyWrongError: It is another key, or ``wrapped`` was altered.
            UnavailableError: Its keeper does not answer.
        """

    async def retire(self, master: str) -> None:
        """Nothing in this host's database is wrapped with it any more: destroys it, as far as its keeper does that.

        Raises:
            UnavailableError: It could not be destroyed. It may be gone already.
        """
