"""Other plugins, for a plugin that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wirthforge_host.errors import FunctionMissingError


@dataclass(frozen=True)
class OtherPlugins:
    """Stands for the calls of other plugins."""

    functions: Mapping[str, Callable[..., Any]]

    async def call_for(
        self,
        plugin: str,
        call_id: str | None,
        *,
        target: str,
        function: str,
        arguments: dict[str, Any],
        timeout_s: float | None,
    ) -> dict[str, Any]:
        """As a host's calls do it."""
        del plugin, call_id, timeout_s
        body = self.functions.get(f"{target}.{function}")
        if body is None:
            raise FunctionMissingError(f"there is no function {target}.{function}")
        try:
            value = body(**arguments)
        except ValueError as error:
            said = [{"type": "text", "text": f"ValueError: {error}"}]
            return {"structured": None, "content": said, "isError": True}
        return {
            "structured": value if isinstance(value, dict) else {"result": value},
            "content": [],
            "isError": False,
        }
