"""What the product promises, and which tests show it: the one list, kept true by tests/architecture.

A promise is ``done`` when its ``tests`` drive the real thing and pass; ``partial`` when they show some of it,
and ``lacks`` says what is missing; ``open`` until then. Each test named here carries
``@pytest.mark.requirement("ID")``. ``python -m tests.requirements --write`` renews the page docs/status.md.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

State: TypeAlias = Literal["done", "partial", "open"]
STATES: tuple[State, ...] = get_args(State)
STATUS = Path(__file__).parent.parent / "docs" / "status.md"
BEGIN, END = "<!-- written by tests/requirements.py -->\n", "<!-- end -->"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One promise."""

    id: str
    title: str
    state: State = "open"
    tests: tuple[str, ...] = ()
    """Node paths, ``tests/unit/sdk/test_versions.py::test_name``."""
    lacks: str = ""
    """What is missing, when partial."""


REQUIREMENTS: tuple[Requirement, ...] = (
    # Plugin core
    Requirement("CORE-1", "sandboxed execution"),
    Requirement("CORE-2", "permission-based security"),
    Requirement("CORE-3", "resource quotas"),
    Requirement("CORE-4", "hot loading"),
    Requirement("CORE-5", "versions and dependencies"),
    Requirement("CORE-6", "API bridge"),
    Requirement("CORE-7", "event system"),
    Requirement("CORE-8", "encrypted data persistence"),
    Requirement("CORE-9", "configuration management"),
    Requirement("CORE-10", "performance optimisation"),
    # Isolation
    Requirement("ISO-1", "process isolation"),
    Requirement("ISO-2", "memory isolation"),
    Requirement("ISO-3", "file system isolation"),
    Requirement("ISO-4", "network isolation"),
    Requirement("ISO-5", "device isolation"),
    Requirement("ISO-6", "isolation enforcement"),
    Requirement("ISO-7", "performance isolation"),
    # Permissions
    Requirement("PERM-1", "granular"),
    Requirement("PERM-2", "runtime requests"),
    Requirement("PERM-3", "inheritance"),
    Requirement("PERM-4", "revocation"),
    Requirement("PERM-5", "auditing"),
    Requirement("PERM-6", "approval binds to content"),
    # Security validation
    Requirement("VAL-1", "static analysis"),
    Requirement("VAL-2", "dynamic analysis"),
    Requirement("VAL-3", "malware detection"),
    Requirement("VAL-4", "vulnerability scanning"),
    Requirement("VAL-5", "code signing"),
    Requirement("VAL-6", "runtime monitoring and threat detection"),
    Requirement("VAL-7", "SBOM"),
    # Resources
    Requirement("RES-1", "real-time monitoring"),
    Requirement("RES-2", "quotas per plugin type"),
    Requirement("RES-3", "usage analytics"),
    Requirement("RES-4", "profiling"),
    Requirement("RES-5", "recommendations"),
    Requirement("RES-6", "quota enforcement"),
    Requirement("RES-7", "priority"),
    Requirement("RES-8", "throttling"),
    Requirement("RES-9", "emergency shutdown"),
    Requirement("RES-10", "recovery"),
    Requirement("RES-11", "pooling"),
    Requirement("RES-12", "load balancing"),
    Requirement("RES-13", "caching"),
    Requirement("RES-14", "memory and CPU optimisation"),
    # Hot loading
    Requirement("HOT-1", "zero-downtime upgrade"),
    Requirement("HOT-2", "rollback"),
    Requirement("HOT-3", "permission diff at upgrade"),
    # Marketplace
    Requirement("MKT-1", "discovery"),
    Requirement("MKT-2", "recommendations"),
    Requirement("MKT-3", "secure distribution"),
    Requirement("MKT-4", "version control"),
    Requirement("MKT-5", "dependency management"),
    Requirement("MKT-6", "updates"),
    Requirement("MKT-7", "reviews and reputation"),
    Requirement("MKT-8", "quality assurance"),
    Requirement("MKT-9", "monetisation and licensing"),
    Requirement("MKT-10", "publishing"),
    Requirement("MKT-11", "statistics"),
    Requirement("MKT-12", "moderation"),
    Requirement("MKT-13", "REST API"),
    Requirement("MKT-14", "web pages"),
    Requirement("MKT-15", "SQLite or Postgres"),
    # Council
    Requirement("COU-1", "parallel coordination"),
    Requirement("COU-2", "synchronisation"),
    Requirement("COU-3", "load distribution"),
    Requirement("COU-4", "failover"),
    Requirement("COU-5", "live optimisation"),
    Requirement("COU-6", "voting"),
    Requirement("COU-7", "confidence weighting"),
    Requirement("COU-8", "disagreement resolution"),
    Requirement("COU-9", "consensus validation"),
    Requirement("COU-10", "adaptive consensus"),
    Requirement("COU-11", "interference"),
    Requirement("COU-12", "interference optimisation"),
    Requirement("COU-13", "resonance"),
    Requirement("COU-14", "frequency, amplitude, phase control"),
    Requirement("COU-15", "council client"),
    # Developer kit
    Requirement("DEV-1", "SDK"),
    Requirement("DEV-2", "CLI"),
    Requirement("DEV-3", "templates"),
    Requirement("DEV-4", "testing framework"),
    Requirement("DEV-5", "debugging and profiling"),
    Requirement("DEV-6", "API documentation"),
    # Schemas
    Requirement("SCH-1", "manifest schema"),
    Requirement("SCH-2", "API collection schema"),
    Requirement("SCH-3", "security policy schema"),
    Requirement("SCH-4", "configuration schema"),
    Requirement("SCH-5", "marketplace schema"),
    # Test kinds
    Requirement("TST-1", "security tests"),
    Requirement("TST-2", "performance across hardware tiers tests"),
    Requirement("TST-3", "integration tests"),
    Requirement("TST-4", "compatibility across system versions tests"),
    Requirement("TST-5", "load tests"),
    # Planned in the specification, promised by us
    Requirement("NEXT-1", "WebAssembly plugins"),
    Requirement("NEXT-2", "cross-platform plugins"),
    Requirement("NEXT-3", "advanced council"),
    Requirement("NEXT-4", "plugin analytics"),
    Requirement("NEXT-5", "distributed marketplace"),
    # Beyond the specification
    Requirement("BEY-1", "Model Context Protocol in and out"),
    Requirement("BEY-2", "truly offline"),
    Requirement("BEY-3", "canary with a verdict"),
    Requirement("BEY-4", "least privilege proved"),
    Requirement("BEY-5", "many machines"),
)


def status_table() -> str:
    """The table of docs/status.md: a count of the states, then a row for each promise."""
    counts = Counter(requirement.state for requirement in REQUIREMENTS)
    lines = [
        f"{len(REQUIREMENTS)} promises: {', '.join(f'{counts[state]} {state}' for state in STATES)}.",
        "",
        "| id | promise | state | shown by | lacks |",
        "|---|---|---|---|---|",
    ]
    for one in REQUIREMENTS:
        shown_by = ", ".join(f"[{_name(test)}](../{test.split('::')[0]})" for test in one.tests)
        lines.append(f"| {one.id} | {one.title} | {one.state} | {shown_by} | {one.lacks} |")
    return "\n".join(lines) + "\n"


def written_table() -> str:
    """The table that docs/status.md holds now; empty when it has none."""
    text = STATUS.read_text(encoding="utf-8") if STATUS.exists() else ""
    return text.partition(BEGIN)[2].partition(END)[0]


def write_table() -> None:
    """Puts the table into docs/status.md and leaves the text around it."""
    before, mark, rest = STATUS.read_text(encoding="utf-8").partition(BEGIN)
    if not mark:
        raise ValueError(f"{STATUS} has no line {BEGIN.strip()}")
    STATUS.write_text(before + BEGIN + status_table() + END + rest.partition(END)[2], encoding="utf-8")


def _name(test: str) -> str:
    return test.rsplit("::", 1)[1].removeprefix("test_").replace("_", " ")


def main() -> int:
    """Writes the table, or tells whether it is as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.requirements", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="renew the table in docs/status.md")
    if parser.parse_args().write:
        write_table()
    return 0 if written_table() == status_table() else 1


if __name__ == "__main__":
    sys.exit(main())
