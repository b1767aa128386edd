"""Writes what is made from the code and read by others: `schemas/` and `docs/cli.md`.

    python scripts/export_schemas.py [--check]

`schemas/*.schema.json` are the documents of the contracts, `schemas/openapi/*.json` the HTTP APIs, and
`docs/cli.md` the commands. The same code gives the same bytes. `--check` writes nothing, names what has
drifted, and then ends with 1.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wirthforge_host.api.app import create_app as create_host
from wirthforge_marketplace.api.app import create_app as create_marketplace
from wirthforge_sdk.cli.reference import reference
from wirthforge_sdk.cli.schemas import documents

ROOT = Path(__file__).resolve().parent.parent


def exported() -> dict[str, str]:
    """The content of every file, by its path below the root."""
    # Without wiring an application can describe itself, and do nothing else.
    apis = {"host": create_host(None), "marketplace": create_marketplace(None)}  # type: ignore[arg-type]
    return {
        **{f"schemas/{name}.schema.json": _text(schema) for name, schema in documents().items()},
        **{f"schemas/openapi/{name}.json": _text(api.openapi()) for name, api in apis.items()},
        "docs/cli.md": reference(),
    }


def drifted(wanted: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """The files below ``root`` that are missing, differ, or should be gone."""
    differing = [name for name, text in wanted.items() if _read(root / name) != text]
    return sorted([*differing, *_stale(wanted, root)])


def export(wanted: Mapping[str, str], root: Path = ROOT) -> None:
    """Writes the files, and removes exports that are none any more."""
    for name, text in wanted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for name in _stale(wanted, root):
        (root / name).unlink()


def main() -> int:
    """Exports, or checks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file has drifted")
    wanted = exported()
    names = drifted(wanted)
    if parser.parse_args().check:
        for name in names:
            print(f"{name} is not what the code says: run `make schemas`", file=sys.stderr)
        return 1 if names else 0
    export(wanted)
    for name in names:
        print(name)
    return 0


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _stale(wanted: Mapping[str, str], root: Path) -> Iterator[str]:
    for path in (root / "schemas").rglob("*.json"):
        name = path.relative_to(root).as_posix()
        if name not in wanted:
            yield name


if __name__ == "__main__":
    sys.exit(main())
