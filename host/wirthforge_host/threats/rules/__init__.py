"""Every threat rule, one module each: a value ``RULE`` whose slug is the module's name. To add one, add its file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType

from wirthforge_host.threats.models import Rule


def found_in(*packages: ModuleType) -> dict[str, Rule]:
    """The rules in the modules of ``packages``, by slug. Imports them: blocks.

    Raises:
        ValueError: Two have the same slug, or a module has no ``RULE``.
    """
    rules: dict[str, Rule] = {}
    for name, path in _modules(packages):
        rule = getattr(importlib.import_module(path), "RULE", None)
        if not isinstance(rule, Rule):
            raise ValueError(f"{path} has no RULE")  # noqa: TRY004 (a module's content, not an argument's type)
        if name in rules:
            raise ValueError(f"two threat rules are called '{name}': rename {path}")
        rules[name] = replace(rule, slug=name)
    return rules


def _modules(packages: Iterable[ModuleType]) -> list[tuple[str, str]]:
    return [
        (module.name, f"{package.__name__}.{module.name}")
        for package in packages
        for module in pkgutil.iter_modules(package.__path__)
    ]
