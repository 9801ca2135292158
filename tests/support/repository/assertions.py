"""Which tests can fail by more than a crash: they assert, or call what asserts."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

from python_source import ROOT

TESTS = ROOT / "tests"
Functions = Mapping[str, ast.FunctionDef]


def unchecked_tests(program: str) -> list[str]:
    """Returns the names of the test functions that neither assert nor raise.

    A test may call a function of its own file or of `tests/support` that does.
    """
    functions = _functions(ast.parse(program))
    checking = _checking(functions, known=_checking_support())
    return [
        name for name in functions if name.startswith("test_") and name not in checking
    ]


@cache
def _checking_support() -> frozenset[str]:
    functions: dict[str, ast.FunctionDef] = {}
    for path in sorted((TESTS / "support").rglob("*.py")):
        functions |= _functions(ast.parse(path.read_text(encoding="utf-8")))
    return _checking(functions, known=frozenset())


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def _checking(functions: Functions, *, known: Iterable[str]) -> frozenset[str]:
    """Returns the functions that check, directly or through one that does."""
    checking = {*known} | {n for n, f in functions.items() if _checks_itself(f)}
    while more := {
        name
        for name, function in functions.items()
        if name not in checking and not checking.isdisjoint(_called(function))
    }:
        checking |= more
    return frozenset(checking)


def _checks_itself(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        match node:
            case (
                ast.Assert() | ast.Raise(exc=ast.Call(func=ast.Name("AssertionError")))
            ):
                return True
            case ast.Call(func=ast.Attribute(attr=name)):
                if name in ("raises", "warns", "fail") or name.startswith("assert_"):
                    return True
    return False


def _called(function: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                yield name
