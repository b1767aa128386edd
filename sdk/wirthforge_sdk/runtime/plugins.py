"""Other plugins, as an author calls them: through the host, which decides, bounds and records."""

from __future__ import annotations

from typing import Any

from wirthforge_sdk.runtime.errors import FunctionFailedError
from wirthforge_sdk.runtime.host import Line


class Plugins:
    """The other plugins of the host. Needs ``plugins.call:<namespace>/<name>.<function>`` for each function.

    A call waits no longer than the call it is made for, ends with it, and is recorded under it. A function that calls
    itself by way of others is refused.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    def call(self, plugin: str, function: str, /, **arguments: Any) -> dict[str, Any]:
        """Calls ``function`` of ``plugin``, a ``namespace/name``.

        Returns:
            The object it returned, or ``{"result": value}`` for anything else; ``{}`` of an MCP server that answers
            in text alone.

        Raises:
            FunctionFailedError: It ran, and says that it failed.
            HostRefusedError: PermissionRefusedError when the call is not granted; HostUnavailableError when the
                plugin does not run; another one below it says why.
        """
        result = self._line.call("host/plugins.call", plugin=plugin, function=function, arguments=arguments)
        if result["isError"]:
            texts = [str(each.get("text", "")) for each in result["content"] if each.get("type") == "text"]
            raise FunctionFailedError(f"{plugin}.{function}: {texts[0] if texts else 'it failed'}")
        found: dict[str, Any] = result["structured"] or {}
        return found
