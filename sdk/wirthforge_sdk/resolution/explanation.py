"""Tells in sentences why nothing can be chosen: the requirements of a proof, those that clash first."""

from __future__ import annotations

from collections.abc import Iterable

from wirthforge_sdk.errors import UnresolvableError
from wirthforge_sdk.resolution.clashes import Domain, Requirement

MAX_SENTENCES = 12
"""A proof may need hundreds of requirements; nobody reads more than these."""
_MAX_NAMED = 3


def explain(facts: Iterable[Requirement]) -> UnresolvableError:
    """The error for a proof.

    Its details hold, under ``requirements``, the same as the sentences tell: ``plugin``, ``range`` and
    ``required_by`` for each, and under ``more`` how many were left out.
    """
    by_plugin: dict[Domain, list[Requirement]] = {}
    for fact in facts:
        by_plugin.setdefault(fact.required, []).append(fact)
    chapters = sorted(by_plugin.values(), key=_is_only_a_link)
    ordered = [fact for chapter in chapters for fact in chapter]
    told, more = ordered[:MAX_SENTENCES], len(ordered[MAX_SENTENCES:])
    sentences = [_sentence([fact for fact in chapter if fact in told]) for chapter in chapters]
    if more:
        sentences.append(f"{more} more requirements play a part.")
    return UnresolvableError(
        " ".join(filter(None, sentences)),
        requirements=[
            {"plugin": fact.required.plugin, "range": str(fact.versions), "required_by": _requirer(fact)}
            for fact in told
        ],
        more=more,
    )


def _is_only_a_link(facts: list[Requirement]) -> bool:
    """Whether nothing is wrong with this plugin itself: it only leads to the one that clashes."""
    return len(facts) == 1 and bool(facts[0].required.admitting(facts[0].versions))


def _sentence(facts: list[Requirement]) -> str:
    """All that is required of one plugin."""
    if not facts:
        return ""
    first, *others = facts
    text = f"{_wanted(first)} is required by {_requirer(first)}"
    if not first.required.versions:
        return f"{text}, but {first.required.plugin} is not in the catalogue."
    if not others and not first.required.admitting(first.versions):
        return f"{text}, but the catalogue has only {_releases(first.required, first.required.full)}."
    for joint, other in zip([", but ", *[", and "] * len(others)], others, strict=False):
        verb = "require" if other.releases.bit_count() > 1 else "requires"
        text += f"{joint}{_requirer(other)} {verb} {_wanted(other)}"
    return text + "."


def _wanted(fact: Requirement) -> str:
    return f"{fact.required.plugin}@{fact.versions}"


def _requirer(fact: Requirement) -> str:
    return _releases(fact.requirer, fact.releases) if fact.requirer else "the request"


def _releases(domain: Domain, values: int) -> str:
    """Names some releases of a plugin: all when they are few, else the first and the last."""
    versions = domain.named(values)
    if len(versions) <= _MAX_NAMED:
        return f"{domain.plugin} {' and '.join(', '.join(map(str, versions)).rsplit(', ', 1))}"
    return f"{domain.plugin} {versions[0]} to {versions[-1]} ({len(versions)} releases)"
