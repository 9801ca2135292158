"""Prints how the repository is laid out, folder by folder, and which rules it breaks.

    python tests/support/repository/structure.py

`tests/structure_test.py` holds what is printed here to its limits.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from documents import broken_references, text_files
from import_graph import find_cycle, graph_within, imported_files, imports_past_a_door
from python_source import PACKAGE, ROOT, read_doors, read_sources

CODE = (PACKAGE, "tests", "benchmarks")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The Python files of a folder, without its door, and their lengths in lines."""

    name: str
    lines: dict[str, int]

    def __str__(self) -> str:
        largest = max(self.lines, key=self.lines.__getitem__)
        median = statistics.median(self.lines.values())
        return (
            f"{self.name:<40} {len(self.lines):>3} files, median {median:>5g} lines, "
            f"largest {self.lines[largest]:>3} ({largest})"
        )


def read_folders() -> list[Folder]:
    """Returns every folder that holds Python files, `__init__.py` not counted."""
    found: dict[Path, dict[str, int]] = defaultdict(dict)
    for top in CODE:
        for path in sorted((ROOT / top).rglob("*.py")):
            if path.name != "__init__.py":
                lines = len(path.read_text(encoding="utf-8").splitlines())
                found[path.parent][path.name] = lines
    return [
        Folder(name=str(folder.relative_to(ROOT)), lines=lines)
        for folder, lines in sorted(found.items())
    ]


def main() -> None:
    folders, sources, doors = read_folders(), read_sources(), read_doors()
    print(*folders, sep="\n")
    for top in CODE:
        inside = [f for f in folders if Path(f.name).parts[0] == top]
        lines = {
            f"{folder.name}/{name}": count
            for folder in inside
            for name, count in folder.lines.items()
        }
        print(Folder(name=f"all of {top}", lines=lines))
    files = imported_files(sources, doors)
    past = [
        f"{name}: {found}"
        for name, source in sources.items()
        for found in imports_past_a_door(source, doors)
    ]
    cycles = [
        " -> ".join(cycle)
        for graph in (files, *(graph_within(folder, files) for folder in doors))
        if (cycle := find_cycle(graph))
    ]
    references = [
        f"{path.relative_to(ROOT)}: {found}"
        for path in text_files()
        for found in broken_references(path)
    ]
    for title, broken in (
        ("imports past a door", past),
        ("cycles of imports", cycles),
        ("references to absent documents or sections", references),
    ):
        print(f"{title}: {len(broken)}", *broken, sep="\n    ")


if __name__ == "__main__":
    main()
