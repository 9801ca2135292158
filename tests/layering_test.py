"""Holds the layering of WORKSPACE.md: who may import whom, through which door.

Imports inside functions count as well. A rule takes one parsed file and returns a
sentence for every place that breaks it; each is also shown code that it refuses.
"""

from collections.abc import Mapping

import pytest
from import_graph import (
    find_cycle,
    graph_within,
    imported_files,
    imports_past_a_door,
    own_imports,
)
from python_source import (
    Doors,
    Source,
    behind,
    door_of,
    is_within,
    read_doors,
    read_sources,
)

# From the bottom up. A unit, a file or folder of the package, imports lower ones only.
LAYERS = (
    ("errors",),
    ("examples", "rouge"),
    ("runtime",),
    ("models",),
    ("cli", "engine", "finetune", "prompts", "retrieval", "run"),
    ("generation",),
    ("answers", "evaluation", "filters", "finetuning", "fit", "questions", "report"),
    ("align",),
    ("config",),
    ("pipeline",),
    ("api",),
    ("main", "tools"),
    ("console",),
)
HEIGHT = {unit: height for height, layer in enumerate(LAYERS) for unit in layer}
OWNERS = {
    "scann": ("retrieval",),
    "orbax": ("runtime.checkpoint",),
    "optax": ("finetune",),
    "qwix": ("models.layers.linear",),
    "jax.sharding": ("runtime.mesh",),
    "jax.NamedSharding": ("runtime.mesh",),
    "jax.P": ("runtime.mesh",),
    "jax.make_mesh": ("runtime.mesh",),
    "jax.experimental.mesh_utils": ("runtime.mesh",),
    "jax.experimental.topologies": ("fit.machines.tpu_slices",),
    "absl.flags": ("cli", "config", "main", "tools"),
}

JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "tokamax")
WITHOUT_JAX = (
    "evaluation.metrics",
    "examples",
    "filters",
    "prompts",
    "report",
    "rouge",
)

SOURCES = read_sources()
DOORS = read_doors()


def imports_go_down(source: Source) -> list[str]:
    unit = source.name.partition(".")[0]
    if not unit:
        return [
            f"line {line}: the package imports {name}"
            for name, line in own_imports(source)
        ]
    if unit not in HEIGHT:
        return [f"{unit} has no place in LAYERS"]
    return [
        f"line {line}: {unit} imports {other}, which is not below it"
        for name, line in own_imports(source)
        if (other := name.partition(".")[0]) not in ("", "__version__", unit)
        and HEIGHT.get(other, len(LAYERS)) >= HEIGHT[unit]
    ]


def dependencies_have_one_owner(source: Source) -> list[str]:
    return [
        f"line {line}: {name}, but {dependency} belongs to {' and '.join(owners)}"
        for dependency, owners in OWNERS.items()
        if not any(is_within(source.name, owner) for owner in owners)
        for name, line in source.names
        if is_within(name, dependency)
    ]


def path_to_jax(
    start: str, sources: Mapping[str, Source], doors: Doors = DOORS
) -> list[str]:
    """Returns the shortest chain of imports from a file to JAX, or nothing.

    The doors are lazy: a name that comes through one costs the file that it is from.
    """
    paths = [[start]]
    seen = {start}
    for path in paths:
        source = sources[path[-1]]
        for name, _ in source.imports:
            if name.partition(".")[0] in JAX:
                return [*path, name]
        reached = {
            package
            for own, _ in own_imports(source)
            for package in _with_packages(behind(own, doors))
        }
        reached |= set(_with_packages(source.name))
        for name in sorted(reached & sources.keys() - seen):
            seen.add(name)
            paths.append([*path, name])
    return []


def _with_packages(name: str) -> list[str]:
    """Importing a.b runs the package's own file and those of a and a.b."""
    words = name.split(".")
    return [".".join(words[:length]) for length in range(len(words) + 1)]


def folders_are_entered_by_their_door(source: Source) -> list[str]:
    """A name of a file in a folder is imported from the folder, by those outside."""
    return imports_past_a_door(source, DOORS)


FILES = imported_files(SOURCES, DOORS)
RULES = (
    imports_go_down,
    dependencies_have_one_owner,
    folders_are_entered_by_their_door,
)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys(rule, name):
    assert rule(SOURCES[name]) == []


@pytest.mark.parametrize(
    "name", [n for n in SOURCES if any(is_within(n, top) for top in WITHOUT_JAX)]
)
def test_no_jax_behind(name):
    assert path_to_jax(name, SOURCES) == []


def test_files_import_each_other_in_no_cycle():
    assert find_cycle(FILES) == []


@pytest.mark.parametrize("folder", DOORS)
def test_children_of_a_folder_import_each_other_in_no_cycle(folder):
    assert find_cycle(graph_within(folder, FILES)) == []


@pytest.mark.parametrize("folder", DOORS)
def test_a_door_offers_what_is_there(folder):
    for name, room in DOORS[folder].items():
        file, _, last = behind(f"{room}.{name}", DOORS).rpartition(".")
        assert file in SOURCES and file not in DOORS, name
        assert last in SOURCES[file].defined, name


def test_every_unit_named_in_a_rule_has_a_layer():
    named = {unit for owners in OWNERS.values() for unit in owners} | set(WITHOUT_JAX)
    assert {unit.partition(".")[0] for unit in named} <= HEIGHT.keys()


UP = imports_go_down
OWNED = dependencies_have_one_owner
DOOR = folders_are_entered_by_their_door


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (UP, "errors", "from isara_jax.examples import Pool"),
        (UP, "models.llama.model", "from isara_jax.engine import Engine"),
        (UP, "engine.engine", "def f():\n    from isara_jax.finetune import loss"),
        (UP, "questions", "import isara_jax.answers as answers"),
        (UP, "align", "from isara_jax import config"),
        (UP, "tools.chat", "from isara_jax.main import main"),
        (UP, "align", "from isara_jax.somewhere import thing"),
        (UP, "somewhere", "import json"),
        (UP, "", "from isara_jax.errors import InputError"),
        (UP, "tools.chat", "from isara_jax import Engine"),
        (OWNED, "align", "import optax"),
        (OWNED, "engine.engine", "def f():\n    from scann import scann_ops_pybind"),
        (OWNED, "runtime.mesh", "import orbax.checkpoint as ocp"),
        (OWNED, "models.llama.model", "from jax.sharding import Mesh"),
        (OWNED, "models.llama.model", "from jax import sharding"),
        (OWNED, "models.decoder", "import jax\nspec = jax.sharding.PartitionSpec()"),
        (OWNED, "models.decoder", "import jax as j\nspec = j.P('data')"),
        (OWNED, "align", "from absl import app, flags"),
        (OWNED, "align", "import absl\nFLAGS = absl.flags.FLAGS"),
        (DOOR, "align", "from isara_jax.engine.engine import Engine"),
        (DOOR, "align", "from isara_jax.engine.sampling import SamplingParams"),
        (DOOR, "align", "from isara_jax.engine import engine"),
        (DOOR, "engine.engine", "from isara_jax.engine.beam.search import search"),
        (DOOR, "models.decoder", "from isara_jax.runtime.files.records import Records"),
        (DOOR, "models.decoder", "import isara_jax.runtime.mesh"),
    ],
)
def test_refused(rule, name, text):
    assert rule(Source(name=name, text=text))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (UP, "errors", "import json"),
        (UP, "models.llama.model", "from isara_jax.models import layers"),
        (UP, "models.llama.model", "from isara_jax.runtime import Mesh"),
        (UP, "main", "from isara_jax.errors import InputError"),
        (OWNED, "retrieval.search", "from scann import scann_ops_pybind"),
        (OWNED, "runtime.mesh", "from jax.sharding import Mesh"),
        (OWNED, "align", "from absl import app, logging"),
        (OWNED, "align", "import jax\ncompiled = jax.jit(f)"),
        (DOOR, "align", "from isara_jax.engine import Engine"),
        (DOOR, "align", "from isara_jax.runtime.files import Records"),
        (DOOR, "engine.beam.search", "from isara_jax.engine.request import Request"),
        (DOOR, "engine.beam.search", "from isara_jax.engine.beam.hypotheses import A"),
        (DOOR, "main", "from isara_jax.align import align"),
    ],
)
def test_allowed(rule, name, text):
    assert rule(Source(name=name, text=text)) == []


def test_a_cycle_of_files_is_found():
    files = {
        "engine.engine": frozenset({"engine.beam.search"}),
        "engine.beam.search": frozenset({"engine.beam.state", "engine.request"}),
        "engine.beam.state": frozenset(),
        "engine.request": frozenset(),
    }
    assert find_cycle(files) == []
    assert find_cycle(graph_within("engine", files)) == []
    assert find_cycle(graph_within("", files)) == []
    assert find_cycle(files | {"engine.beam.state": frozenset({"engine.engine"})})


def test_a_cycle_of_folders_without_one_of_files_is_found():
    files = {
        "engine.beam.search": frozenset({"engine.request"}),
        "engine.request": frozenset({"engine.beam.state"}),
        "engine.beam.state": frozenset(),
    }
    assert find_cycle(files) == []
    assert find_cycle(graph_within("engine", files))


def test_jax_is_found_through_the_project_s_own_imports():
    texts = {
        "": "",
        "prompts": "from isara_jax.runtime import words",
        "runtime": "from isara_jax.runtime import mesh",
        "runtime.mesh": "def f():\n    import jax.numpy",
        "runtime.words": "import json",
        "filters": "import numpy",
        "report": "from isara_jax.run import Workdir",
        "run": "",
        "run.workdir": "import json",
        "run.release": "import jax",
        "cards": "from isara_jax.run import release",
    }
    sources = {name: Source(name=name, text=text) for name, text in texts.items()}
    doors = {
        "run": door_of(
            "run",
            "from .workdir import Workdir as Workdir\n"
            "from .release import release as release",
        )
    }
    assert path_to_jax("prompts", sources, doors) == [
        "prompts",
        "runtime",
        "runtime.mesh",
        "jax.numpy",
    ]
    assert path_to_jax("runtime.words", sources, doors) != []
    assert path_to_jax("filters", sources, doors) == []
    assert path_to_jax("report", sources, doors) == []
    assert path_to_jax("cards", sources, doors) == ["cards", "run.release", "jax"]
