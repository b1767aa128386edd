"""Whether what is in force is what was asked for. Pure; unknown is different."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec, Mismatch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Form = TypeVar("Form", bound=DataclassInstance)


def compare(spec: ContainerSpec, effective: ContainerSettings) -> tuple[Mismatch, ...]:
    """Every setting that differs, in the order of ``ContainerSettings``; empty when nothing does.

    All fields are compared, so a setting the engine does not report (``None``) is a mismatch wherever a value
    was asked for, and one it reports unasked is a mismatch too.
    """
    return differences(spec.settings, effective)


def differences(wanted: Form, found: Form) -> tuple[Mismatch, ...]:
    """Every field in which two values of one form differ, in the form's order."""
    pairs = ((each.name, getattr(wanted, each.name), getattr(found, each.name)) for each in fields(wanted))
    # Types count: False is not 0, and neither is "nothing was said".
    return tuple(
        Mismatch(name, one, other)
        for name, one, other in pairs
        if type(one) is not type(other) or one != other
    )
