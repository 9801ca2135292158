"""The package's files, parsed: what each imports and which dotted names it uses.

A door is a folder's table of contents, the stub that its lazy `__init__.py` reads.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "isara_jax"
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One Python file; `name` is its dotted name without the package's."""

    name: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> tuple[tuple[str, int], ...]:
        """The dotted names that it imports; of `from a import b`, a and a.b."""
        return tuple(_imports(self.tree))

    @cached_property
    def names(self) -> tuple[tuple[str, int], ...]:
        """The imports, and every dotted name of the code under its full name."""
        return self.imports + tuple(_names(self.tree))

    @cached_property
    def defined(self) -> frozenset[str]:
        """The names that stand at the top of the file, imported ones too."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign):
                found.update(t.id for t in node.targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                found.update(alias.asname or alias.name for alias in node.names)
        return frozenset(found)


def _imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno
            yield from ((f"{node.module}.{a.name}", node.lineno) for a in node.names)


def _names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    full_names = _full_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            first, _, rest = ast.unparse(node).partition(".")
            yield f"{full_names.get(first, first)}.{rest}".rstrip("."), node.lineno


def _full_names(tree: ast.Module) -> dict[str, str]:
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return full


def is_within(name: str, ancestor: str) -> bool:
    return name == ancestor or name.startswith(f"{ancestor}.")


def read_sources() -> dict[str, Source]:
    sources = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        words = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        name = ".".join(words[:-1] if words[-1] == "__init__" else words)
        sources[name] = Source(name=name, text=path.read_text(encoding="utf-8"))
    return sources


Doors = dict[str, dict[str, str]]


def read_doors() -> Doors:
    """Returns, by folder, the file of every name of its table of contents."""
    return {
        _dotted(path.parent): door_of(_dotted(path.parent), path.read_text("utf-8"))
        for path in sorted((ROOT / PACKAGE).rglob("__init__.pyi"))
    }


def door_of(folder: str, stub: str) -> dict[str, str]:
    return {
        alias.name: f"{folder}.{node.module}".removeprefix(".")
        for node in ast.walk(ast.parse(stub))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def behind(name: str, doors: Doors) -> str:
    """Follows a name through the doors: `engine.Engine` is `engine.engine.Engine`.

    The package's own door is for others: inside, `align` is the module.
    """
    folder, _, last = name.rpartition(".")
    while folder and folder in doors and last in doors[folder]:
        folder = doors[folder][last]
    return f"{folder}.{last}".removeprefix(".")


def _dotted(folder: Path) -> str:
    return ".".join(folder.relative_to(ROOT / PACKAGE).parts)
