"""What the distributions depend on, and that what runs in a plugin's container depends on next to nothing."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SDK = ROOT / "sdk"
MEMBERS = ("sdk", "host", "marketplace")
INSIDE = ("wirthforge_sdk.contracts.bridge", "wirthforge_sdk.contracts.framing", "wirthforge_sdk.errors")
"""Used inside containers, besides everything in wirthforge_sdk.runtime."""
ALLOWED = {*sys.stdlib_module_names, "msgspec", "wirthforge_sdk"}


def dependencies_of(folder):
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "dependencies"
    ]


def file_of(module):
    """The file of a module of the SDK; None when there is none of this name."""
    path = SDK.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()), None)


def imports_of(source):
    """Every name that a module imports, at its top, in a function or for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def with_parents(module):
    parts = module.split(".")
    return {".".join(parts[:end]) for end in range(1, len(parts) + 1)}


def runtime_modules():
    folder = SDK / "wirthforge_sdk" / "runtime"
    names = {
        path.relative_to(SDK).with_suffix("").as_posix().replace("/", ".") for path in folder.rglob("*.py")
    }
    return {name.removesuffix(".__init__") for name in names} | {name for name in INSIDE if file_of(name)}


def closure(modules):
    """From each module of the SDK that ``modules`` lead to, to all that it imports."""
    found = {}
    waiting = {parent for module in modules for parent in with_parents(module)}
    while waiting:
        module = waiting.pop()
        found[module] = set(imports_of(file_of(module).read_text(encoding="utf-8")))
        ours = {parent for name in found[module] for parent in with_parents(name) if file_of(parent)}
        waiting |= {name for name in ours if name not in found}
    return found


@pytest.mark.requirement("DEV-1")
def test_the_umbrella_depends_on_what_its_members_depend_on():
    external = {
        one for member in MEMBERS for one in dependencies_of(member) if not one.startswith("wirthforge-")
    }
    assert sorted(dependencies_of(".")) == sorted(external)


def test_what_runs_in_a_container_imports_only_the_standard_library_and_msgspec():
    foreign = {
        module: sorted(outside)
        for module, names in closure(runtime_modules()).items()
        if (outside := {name for name in names if name.split(".")[0] not in ALLOWED})
    }
    assert foreign == {}


def test_what_runs_in_a_container_loads_nothing_heavy():
    """The same as it really happens: each module imported in one fresh process."""
    modules = sorted(name for name in runtime_modules() if not name.endswith("__main__"))
    code = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SDK)
    roots = {name.split(".")[0] for name in loaded.stdout.split()}
    assert "wirthforge_sdk" in roots
    assert (
        roots & {"pydantic", "httpx", "typer", "rich", "cryptography", "fastapi", "sqlalchemy", "yaml"}
        == set()
    )


def test_imports_are_seen_wherever_they_stand():
    source = "import a.b\ndef f():\n    from c import d\nif TYPE_CHECKING:\n    import e"
    assert set(imports_of(source)) == {"a.b", "c", "c.d", "e"}


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_ships_its_types(member):
    assert (ROOT / member / f"wirthforge_{member}" / "py.typed").exists()
