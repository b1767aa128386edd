"""Every module of the product keeps the bounds on size and names; ruff bounds complexity."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for root in ("sdk", "host", "marketplace", "bench", "scripts")
    for path in (ROOT / root).rglob("*.py")
    if "templates" not in path.parts  # what a new plugin starts from is data
)

MODULE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 6
METHODS = 15
FILE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core", "base", "manager", "handler"}
CLASS_SUFFIXES = ("Manager", "Handler", "Helper", "Helpers", "Util", "Utils", "Base", "Impl", "Core")

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def complaints(source, name):
    """What is wrong with a module, in words."""
    tree = ast.parse(source)
    lines = source.count("\n")
    if lines > MODULE_LINES:
        yield f"{lines} lines, more than {MODULE_LINES}"
    if not ast.get_docstring(tree):
        yield "no docstring"
    if Path(name).stem in FILE_NAMES:
        yield "a file name that says nothing"
    methods = {node for one in ast.walk(tree) if isinstance(one, ast.ClassDef) for node in one.body}
    for node in ast.walk(tree):
        if isinstance(node, FUNCTIONS):
            yield from function_complaints(node, is_method=node in methods)
        elif isinstance(node, ast.ClassDef):
            yield from class_complaints(node)


def function_complaints(node, *, is_method):
    lines = node.end_lineno - node.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"{node.name}: {lines} lines, more than {FUNCTION_LINES}"
    # As ruff's PLR0913 counts: keyword-only ones too, but neither self nor cls, *args, **kwargs or _unused.
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    is_static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
    named = arguments[1:] if is_method and not is_static else arguments
    count = sum(not one.arg.startswith("_") for one in named)
    if count > PARAMETERS:
        yield f"{node.name}: {count} parameters, more than {PARAMETERS}"


def class_complaints(node):
    # What its users must know; how much is behind it, the bound on lines bounds.
    count = sum(isinstance(one, FUNCTIONS) and not one.name.startswith("_") for one in node.body)
    if count > METHODS:
        yield f"{node.name}: {count} public methods, more than {METHODS}"
    if node.name.endswith(CLASS_SUFFIXES):
        yield f"{node.name}: a class name that says nothing"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_keeps_the_bounds_of_the_house(module):
    assert list(complaints((ROOT / module).read_text(encoding="utf-8"), module)) == []


DOC = '"""Says."""\n'
BODY = "\n".join(["    pass"] * FUNCTION_LINES)
EDGES = {
    "a module of 400 lines": (DOC + "\n" * 399, "x.py", True),
    "a module of 401 lines": (DOC + "\n" * 400, "x.py", False),
    "no docstring": ("x = 1\n", "x.py", False),
    "utils.py": (DOC, "a/utils.py", False),
    "a function of 50 lines": (f"{DOC}def f():\n{BODY[9:]}", "x.py", True),
    "a function of 51 lines": (f"{DOC}async def f():\n{BODY}", "x.py", False),
    "six parameters": (f"{DOC}def f(a, b, c, d, *e, g, h, **k): ...", "x.py", True),
    "seven parameters": (f"{DOC}def f(a, b, c, d, *, e, g, h): ...", "x.py", False),
    "six parameters and self": (f"{DOC}class A:\n def f(self, a, b, c, d, e, g): ...", "x.py", True),
    "seven parameters and self": (f"{DOC}class A:\n def f(self, a, b, c, d, e, g, h): ...", "x.py", False),
    "fifteen methods": (
        f"{DOC}class A:\n" + "".join(f" def f{i}(self): ...\n" for i in range(15)),
        "x.py",
        True,
    ),
    "sixteen methods": (
        f"{DOC}class A:\n" + "".join(f" def f{i}(self): ...\n" for i in range(16)),
        "x.py",
        False,
    ),
    "fifteen methods and private ones": (
        f"{DOC}class A:\n" + "".join(f" def f{i}(self): ...\n def _f{i}(self): ...\n" for i in range(15)),
        "x.py",
        True,
    ),
    "PluginManager": (f"{DOC}class PluginManager: ...", "x.py", False),
    "a plain name": (f"{DOC}class Gate: ...", "x.py", True),
}


@pytest.mark.parametrize(("source", "name", "is_fine"), EDGES.values(), ids=EDGES.keys())
def test_the_bounds_lie_where_they_are_said_to_lie(source, name, is_fine):
    assert (not list(complaints(source, name))) == is_fine
