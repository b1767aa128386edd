"""Whether what is in force is what was asked for. Pure; unknown is different."""

from __future__ import annotations

from dataclasses import fields

from wirthforge_host.sandbox.models import ContainerSettings, ContainerSpec, Mismatch


def compare(spec: ContainerSpec, effective: ContainerSettings) -> tuple[Mismatch, ...]:
    """Every setting that differs, in the order of ``ContainerSettings``; empty when nothing does.

    All fields are compared, so a setting the engine does not report (``None``) is a mismatch wherever a value
    was asked for, and one it reports unasked is a mismatch too.
    """
    pairs = (
        (setting.name, getattr(spec.settings, setting.name), getattr(effective, setting.name))
        for setting in fields(ContainerSettings)
    )
    # Types count: False is not 0, and neither is "nothing was said".
    return tuple(
        Mismatch(name, wanted, found)
        for name, wanted, found in pairs
        if type(wanted) is not type(found) or wanted != found
    )
