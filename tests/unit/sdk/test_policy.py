"""The operator's policy: what it says, what a release may use under it, and which of its rules one breaks."""

from __future__ import annotations

from typing import Any

import pytest

from wirthforge_sdk.contracts.manifest import Manifest
from wirthforge_sdk.contracts.policy import (
    HOUSE_POLICY,
    SecurityPolicy,
    limits_for,
    parse_policy,
    violations,
)
from wirthforge_sdk.contracts.resources import MIB, TIERS, Tier
from wirthforge_sdk.errors import InvalidInputError


def manifest(**changes: Any) -> Manifest:
    least: dict[str, Any] = {
        "manifest_version": 1,
        "name": "acme/weather",
        "version": "1.0.0",
        "summary": "Weather",
        "authors": ["Ada"],
        "license": "MIT",
        "runtime": {"type": "python", "entry": "plugin:plugin"},
    }
    return Manifest.model_validate(least | changes)


def asking(*needs: str) -> Manifest:
    return manifest(permissions=[{"need": need, "reason": "so"} for need in needs])


def test_an_empty_document_is_the_houses_own_policy() -> None:
    assert parse_policy(b"") == HOUSE_POLICY


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ("[cap]\npids = 3\n", "cap.pids"),
        ("[require]\ngrade = 101\n", "require.grade"),
        ("[require]\nruntimes = ['../runc']\n", "require.runtimes.0"),
        ("[allow]\npermissions = ['storage.raed']\n", "allow.permissions.0"),
        ("[tiers.huge]\ncpus = 1\n", "tiers.huge"),
        ("[tiers.micro]\ncpus = 99\n", "tiers.micro.cpus"),
        ("[defaults]\ngame = 'micro'\n", "defaults.game"),
        ("[caps]\n", "caps"),
        ("policy_version = 2\n", "policy_version"),
        ("[cap", "policy"),
    ],
)
def test_a_document_that_is_no_policy_is_refused_by_its_field(document: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_policy(document.encode())
    assert str(caught.value.details["field"]).startswith(field)


@pytest.mark.requirement("RES-2")
@pytest.mark.parametrize(
    ("resources", "policy", "limits"),
    [
        ({}, "", TIERS[Tier.SMALL]),
        ({"tier": "micro"}, "", TIERS[Tier.MICRO]),
        ({}, "[defaults]\nmodel = 'large'\n", TIERS[Tier.LARGE]),
        ({}, "[defaults]\ntool = 'large'\n", TIERS[Tier.SMALL]),
        ({"tier": "micro"}, "[defaults]\nmodel = 'large'\n", TIERS[Tier.MICRO]),
        ({}, "[tiers.small]\npids = 10\n", TIERS[Tier.SMALL].model_copy(update={"pids": 10})),
        ({"pids": 20}, "[tiers.small]\npids = 10\n", TIERS[Tier.SMALL].model_copy(update={"pids": 20})),
        (
            {"cpus": 1.5},
            "[defaults]\nmodel = 'micro'\n[tiers.micro]\npids = 10\n",
            TIERS[Tier.MICRO].model_copy(update={"cpus": 1.5, "pids": 10}),
        ),
    ],
)
def test_limits_are_the_explicit_over_the_tiers_over_the_kinds(
    resources: dict[str, Any], policy: str, limits: object
) -> None:
    one = manifest(kind="model", resources=resources)
    assert limits_for(one, parse_policy(policy.encode())) == limits


def test_the_houses_own_policy_lets_every_tier_and_permission_through() -> None:
    for tier in Tier:
        assert violations(manifest(resources={"tier": tier}), HOUSE_POLICY) == ()
    assert violations(asking("storage.read", "net.connect:api.example.org:443"), HOUSE_POLICY) == ()


@pytest.mark.requirement("RES-2", "SCH-3")
def test_a_cap_holds_for_what_a_tier_brings_too() -> None:
    capped = SecurityPolicy.model_validate({"cap": {"pids": 50, "memory_bytes": 100 * MIB}})
    assert [each.rule for each in violations(manifest(), capped)] == ["cap.memory_bytes", "cap.pids"]
    assert violations(manifest(resources={"tier": "micro"}), capped) == ()


@pytest.mark.parametrize(
    ("rules", "broken"),
    [
        (["storage"], ["net.connect:api.example.org:443"]),
        (["storage.read", "net"], []),
        (["storage.write", "net.connect"], ["storage.read"]),
        ([], ["storage.read", "net.connect:api.example.org:443"]),
    ],
)
def test_a_permission_is_allowed_by_any_rule_that_covers_it(rules: list[str], broken: list[str]) -> None:
    allowing = SecurityPolicy.model_validate({"allow": {"permissions": rules}})
    found = violations(asking("storage.read", "net.connect:api.example.org:443"), allowing)
    assert [each.rule for each in found] == ["allow.permissions"] * len(broken)
    assert all(need in each.message for need, each in zip(broken, found, strict=True))
