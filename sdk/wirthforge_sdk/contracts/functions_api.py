"""The shapes of functions that are quarantined, shared by server and client."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from wirthforge_sdk.contracts.identifiers import TOOL_NAME, Digest
from wirthforge_sdk.contracts.manifest import Function, Sentence
from wirthforge_sdk.contracts.wire import Body, Shape


class QuarantinedFunction(Shape):
    """A function that an instance offers otherwise than it was signed and approved. It is not called."""

    name: str
    differences: list[str]
    """Each in a few words."""
    offered: Function | None
    """As it is offered now; null: it is gone."""
    fingerprint: Digest
    """Of what is offered; an approval names it."""


class FunctionApprovalIn(Body):
    """An operator's yes to a function as it is offered now."""

    digest: Digest
    """Of the release."""
    function: Annotated[str, StringConstraints(pattern=rf"^{TOOL_NAME}$")]
    fingerprint: Digest
    """Of what was looked at: an approval never reaches anything else."""
    reason: Sentence = "approved by the operator"
