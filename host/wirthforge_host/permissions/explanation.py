"""Why a permission is allowed or not, told from the rules there are and were. Pure: values in, sentences out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from wirthforge_host.permissions.rights import Bundles, Effect, Rule, compiled, unbundled
from wirthforge_sdk.contracts.permissions import covered
from wirthforge_sdk.contracts.permissions_api import WhyOut


def explained(
    need: str, rules: Iterable[Rule], roles: Bundles, now: datetime, *, declared: bool, plugin: str
) -> WhyOut:
    """How the complete permission ``need`` stands, and every rule that has or had to do with it, the deciding first.

    Args:
        need: The permission.
        rules: All of the release, those that ended too.
        roles: As they are now.
        now: When.
        declared: Whether the release asks for it at all.
        plugin: Whose it is.
    """
    about = sorted(
        (rule for rule in rules if covered(need, unbundled(rule.rule, roles))),
        key=lambda rule: (
            not rule.holds_at(now),
            rule.effect is not Effect.DENY,
            -len(rule.rule),
            rule.created_at,
        ),
    )
    granted = compiled(about, now, roles).allows(need)
    live = [rule for rule in about if rule.holds_at(now)]
    if granted and not declared:
        verdict = f"{plugin} may not: {live[0].rule} would cover it."
    elif granted:
        verdict = f"{plugin} may: {live[0].rule} was granted by {live[0].granter}, and nothing denies it."
    elif live and live[0].effect is Effect.DENY:
        others = (
            ", though it is granted too: a denial wins" if any(r.effect is Effect.GRANT for r in live) else ""
        )
        verdict = f"{plugin} may not: {live[0].rule} was denied by {live[0].granter}{others}."
    elif about:
        verdict = f"{plugin} may not: what granted it has ended."
    else:
        verdict = f"{plugin} may not: nobody granted it."
    if not declared:
        verdict += " Its release does not ask for it."
    return WhyOut(
        plugin=plugin,
        permission=need,
        allowed=granted and declared,
        verdict=verdict,
        rules=[_sentence(rule, now, unbundled(rule.rule, roles)) for rule in about],
    )


def _sentence(rule: Rule, now: datetime, words: Collection[str]) -> str:
    done = "granted" if rule.effect is Effect.GRANT else "denied"
    bundle = "" if rule.rule in words else f" ({', '.join(sorted(words))})"
    told = f"{rule.rule}{bundle} {done} by {rule.granter} on {rule.created_at:%Y-%m-%d %H:%M} ({rule.reason})"
    if rule.revoked_at is not None and not (rule.expires_at and rule.expires_at <= rule.revoked_at):
        return f"{told}; revoked on {rule.revoked_at:%Y-%m-%d %H:%M}"
    if rule.expires_at is not None:
        return (
            f"{told}; {'expires' if now < rule.expires_at else 'expired'} on {rule.expires_at:%Y-%m-%d %H:%M}"
        )
    return told
