"""Which modules have a test file of their name, and which test files a module.

The tests of a module are, in the folder of its name under tests/, <module>_test.py,
<module>_<aspect>_test.py, or a folder <module>/ of test files. A module that defines no
function is a declaration, and needs no test.
"""

import ast
from collections.abc import Iterator

from python_source import PACKAGE, ROOT

TESTS = ROOT / "tests"


def untested_modules() -> list[str]:
    """Returns the modules of the package that no test file is named after."""
    tested = {module for test in _tests() for module in modules_of(test)}
    return [
        name for name in _modules() if name not in tested and _defines_a_function(name)
    ]


def unattached_tests() -> list[str]:
    """Returns the test files that are named after no module of the package."""
    modules = set(_modules())
    return [test for test in _tests() if modules.isdisjoint(modules_of(test))]


def modules_of(test: str) -> Iterator[str]:
    """Yields the modules that a test file may be named after, without `.py`."""
    folder, _, name = f"/{test}".rpartition("/")
    folder = folder.removeprefix("/")
    words = name.removesuffix("_test.py").split("_")
    for count in range(1, len(words) + 1):
        yield f"{folder}/{'_'.join(words[:count])}".removeprefix("/")
    yield folder


def _modules() -> list[str]:
    return [
        path.relative_to(ROOT / PACKAGE).with_suffix("").as_posix()
        for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        if path.name != "__init__.py"
    ]


def _defines_a_function(module: str) -> bool:
    text = (ROOT / PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(text)))


def _tests() -> list[str]:
    return [
        path.relative_to(TESTS).as_posix() for path in sorted(TESTS.rglob("*_test.py"))
    ]
