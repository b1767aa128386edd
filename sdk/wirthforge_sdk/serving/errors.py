"""Named errors that both servers answer with, each below one of the eight kinds of ``wirthforge_sdk.errors``."""

from __future__ import annotations

from wirthforge_sdk.errors import LimitExceededError, UnavailableError


class BodyTooLargeError(LimitExceededError):
    """The body of a request is over its bound."""

    code = "body_too_large"


class DatabaseUnavailableError(UnavailableError):
    """The database does not answer, or a lock in it was not free in time."""

    code = "database_unavailable"


class SchemaMissingError(UnavailableError):
    """The database lacks tables or columns; the message tells how to make them."""

    code = "schema_missing"
