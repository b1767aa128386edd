"""What an operator sets, in memory: configuration and secrets of the plugin under test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wirthforge_sdk.contracts.configuration import Configuration, Values, completed, problems
from wirthforge_sdk.errors import InvalidInputError


class MemorySettings:
    """Configuration and secrets.

    Args:
        schema: Of the manifest; values are checked by it and get its defaults. None: any value is taken.
        config: What the operator set.
        secrets: By name.

    Raises:
        InvalidInputError: A value does not fit; says which, and the remedy.
    """

    def __init__(
        self,
        schema: Configuration | None = None,
        config: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._schema = schema
        self.secrets: dict[str, str] = dict(secrets or {})
        self.version = 0
        self.values: Values = {}
        self.configure(config or {})
        self.version = 1 if config else 0

    def configure(self, given: Mapping[str, Any]) -> None:
        """Sets these values and no others.

        Raises:
            InvalidInputError: One does not fit.
        """
        whole = dict(given) if self._schema is None else completed(self._schema, given)
        wrong = [] if self._schema is None else problems(self._schema.schema_of(), whole)
        if wrong:
            raise InvalidInputError(
                str(wrong[0]), field=wrong[0].path, problems=[str(each) for each in wrong]
            )
        self.values, self.version = whole, self.version + 1

    def config_answer(self) -> dict[str, Any]:
        """Of ``host/config.get``."""
        return {"version": self.version, "values": self.values}

    def secret_answer(self, name: str) -> dict[str, Any]:
        """Of ``host/secrets.get``."""
        return {"found": name in self.secrets, "value": self.secrets.get(name)}
