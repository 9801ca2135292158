"""Who imports whom in the package: past which doors, and in which cycles."""

import graphlib
from collections.abc import Iterator, Mapping

from python_source import PACKAGE, Doors, Source, behind, is_within

# Folders whose sub-folders are private: everything public is in the folder's own door.
ONE_DOOR = ("engine", "finetune")


def own_imports(source: Source) -> Iterator[tuple[str, int]]:
    """Yields the names that a file imports from the package, each with its line."""
    for name, line in source.imports:
        if is_within(name, PACKAGE):
            yield name.removeprefix(PACKAGE).removeprefix("."), line


def imports_past_a_door(source: Source, doors: Doors) -> list[str]:
    """Finds the imports of a folder's file by those outside of the folder."""
    return [
        f"line {line}: {name} is past the door of {folder}"
        for name, line in own_imports(source)
        for folder in doors
        if folder and is_within(name, folder) and name != folder
        if not is_within(source.name, folder)
        if not _is_public(name, folder, doors)
    ]


def _is_public(name: str, folder: str, doors: Doors) -> bool:
    """Whether it is a name of the door, or a sub-folder that has a door of its own."""
    inner = name.removeprefix(f"{folder}.").partition(".")[0]
    if inner in doors[folder] and name == f"{folder}.{inner}":
        return True
    return f"{folder}.{inner}" in doors and folder not in ONE_DOOR


def imported_files(
    sources: Mapping[str, Source], doors: Doors
) -> dict[str, frozenset[str]]:
    """Returns, by file, the files of the package that it imports names from."""
    return {
        name: frozenset(_imported_by(source, sources, doors))
        for name, source in sources.items()
    }


def _imported_by(
    source: Source, sources: Mapping[str, Source], doors: Doors
) -> Iterator[str]:
    for name, _ in own_imports(source):
        whole = behind(name, doors)
        file = whole if whole in sources else whole.rpartition(".")[0]
        if file in sources and file != source.name and file not in doors:
            yield file


def find_cycle(graph: Mapping[str, frozenset[str]]) -> list[str]:
    """Returns one cycle of the graph, if it has any."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [str(node) for node in error.args[1]]
    return []


def graph_within(
    folder: str, files: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Returns who imports whom among the files and sub-folders of a folder."""

    def child(name: str) -> str:
        return name.removeprefix(f"{folder}." if folder else "").partition(".")[0]

    def inside(name: str) -> bool:
        return not folder or (is_within(name, folder) and name != folder)

    graph: dict[str, frozenset[str]] = {}
    for name, imported in files.items():
        if name and inside(name):
            others = {child(other) for other in imported if inside(other)}
            known = graph.get(child(name), frozenset())
            graph[child(name)] = known | (others - {child(name)})
    return graph
