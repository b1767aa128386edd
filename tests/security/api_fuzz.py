"""Asks a host everything its OpenAPI document allows and much that it does not, and counts what breaks.

``python -m tests.security.api_fuzz URL TOKEN [EXAMPLES]`` prints one JSON object: operations, requests, and each answer
of status 500 or above with the request that brought it. In a process of its own, for schemathesis is not asynchronous.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ENDLESS = frozenset(
    {"/v1/events", "/v1/audit/stream", "/v1/resources/stream", "/v1/plugins/{namespace}/{name}/logs/stream"}
)
"""Streams: their answer has no end."""
PATIENCE_S = 20.0
SERVER_ERROR = 500
UNAVAILABLE = 503
"""Said on purpose: no engine, no marketplace."""


class Fuzz:
    """Requests to one host, and what broke at them."""

    def __init__(self, token: str, examples: int) -> None:
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._examples = examples
        self.asked = 0
        self.broken: list[dict[str, object]] = []

    def ask(self, operation: Any) -> None:
        """Makes up requests to one operation, half of them wrong on purpose."""

        @settings(
            max_examples=self._examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def made_up(data: st.DataObject) -> None:
            mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
            case = data.draw(operation.as_strategy(generation_mode=mode))
            answer = case.call(session=self._session, timeout=PATIENCE_S)
            self.asked += 1
            if answer.status_code >= SERVER_ERROR and answer.status_code != UNAVAILABLE:
                told = {"status": answer.status_code, "request": case.as_curl_command()}
                self.broken.append({**told, "answer": answer.text[:500]})

        made_up()


def main(url: str, token: str, examples: int) -> None:
    """Prints what was found."""
    fuzz, operations = Fuzz(token, examples), 0
    for found in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations():
        operation = found.ok()
        if operation.path not in ENDLESS:
            operations += 1
            fuzz.ask(operation)
    told = {"operations": operations, "requests": fuzz.asked, "broken": fuzz.broken}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 20)
