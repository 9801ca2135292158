"""Holds the layering of WORKSPACE.md: who may import whom, and who owns a dependency.

Imports inside functions count as well. A rule takes one parsed file and returns a
sentence for every place that breaks it; each is also shown code that it refuses.
"""

from collections.abc import Iterator, Mapping

import pytest
from python_source import PACKAGE, Source, is_within, read_sources

# From the bottom up. A unit, a file or folder of the package, imports lower ones only.
LAYERS = (
    ("errors",),
    ("examples", "rouge", "workdir"),
    ("runtime",),
    ("models",),
    ("demo_order", "engine", "finetune", "prompts", "retrieval"),
    ("sampler",),
    (
        *("answers", "evaluation", "filters", "fit"),
        *("questions", "release", "report", "tuning"),
    ),
    ("adaptation", "align", "command", "manifest", "sections"),
    ("config",),
    ("main", "tools"),
)
HEIGHT = {unit: height for height, layer in enumerate(LAYERS) for unit in layer}

OWNERS = {
    "scann": ("retrieval",),
    "orbax": ("runtime.checkpoint",),
    "optax": ("finetune",),
    "qwix": ("models.kernels",),
    "jax.sharding": ("runtime.mesh",),
    "jax.NamedSharding": ("runtime.mesh",),
    "jax.P": ("runtime.mesh",),
    "jax.make_mesh": ("runtime.mesh",),
    "jax.experimental.mesh_utils": ("runtime.mesh",),
    "jax.experimental.topologies": ("fit.slices",),
    "absl.flags": ("command", "config", "main", "sections", "tools"),
}

JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "tokamax")
WITHOUT_JAX = (
    "demo_order",
    "evaluation.metrics",
    "examples",
    "filters",
    "prompts",
    "report",
    "rouge",
)

SOURCES = read_sources()


def own_imports(source: Source) -> Iterator[tuple[str, int]]:
    for name, line in source.imports:
        if is_within(name, PACKAGE):
            yield name.removeprefix(PACKAGE).removeprefix("."), line


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
        if (other := name.partition(".")[0]) not in ("", unit)
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


def way_to_jax(start: str, sources: Mapping[str, Source]) -> list[str]:
    """Returns the shortest chain of imports from a file to JAX, or nothing."""
    ways = [[start]]
    seen = {start}
    for way in ways:
        source = sources[way[-1]]
        for name, _ in source.imports:
            if name.partition(".")[0] in JAX:
                return [*way, name]
        reached = {n for own, _ in own_imports(source) for n in _with_packages(own)}
        reached |= set(_with_packages(source.name))
        for name in sorted(reached & sources.keys() - seen):
            seen.add(name)
            ways.append([*way, name])
    return []


def _with_packages(name: str) -> list[str]:
    """Importing a.b runs the package's own file and those of a and a.b."""
    words = name.split(".")
    return [".".join(words[:length]) for length in range(len(words) + 1)]


RULES = (imports_go_down, dependencies_have_one_owner)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys(rule, name):
    assert rule(SOURCES[name]) == []


@pytest.mark.parametrize(
    "name", [n for n in SOURCES if any(is_within(n, top) for top in WITHOUT_JAX)]
)
def test_no_jax_behind(name):
    assert way_to_jax(name, SOURCES) == []


def test_every_unit_named_in_a_rule_has_a_layer():
    named = {unit for owners in OWNERS.values() for unit in owners} | set(WITHOUT_JAX)
    assert {unit.partition(".")[0] for unit in named} <= HEIGHT.keys()


UP = imports_go_down
OWNED = dependencies_have_one_owner


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (UP, "errors", "from isara_jax.examples import Pool"),
        (UP, "models.llama", "from isara_jax.engine.decode import generate"),
        (UP, "engine.decode", "def f():\n    from isara_jax.finetune import loss"),
        (UP, "questions", "import isara_jax.answers as answers"),
        (UP, "align", "from isara_jax import config"),
        (UP, "tools.chat", "from isara_jax.main import main"),
        (UP, "align", "from isara_jax.somewhere import thing"),
        (UP, "somewhere", "import json"),
        (UP, "", "from isara_jax.errors import InputError"),
        (OWNED, "align", "import optax"),
        (OWNED, "engine.decode", "def f():\n    from scann import scann_ops_pybind"),
        (OWNED, "runtime.mesh", "import orbax.checkpoint as ocp"),
        (OWNED, "models.llama", "from jax.sharding import Mesh"),
        (OWNED, "models.llama", "from jax import sharding"),
        (OWNED, "models.llama", "import jax\nspec = jax.sharding.PartitionSpec()"),
        (OWNED, "models.llama", "import jax as j\nspec = j.P('data')"),
        (OWNED, "align", "from absl import app, flags"),
        (OWNED, "align", "import absl\nFLAGS = absl.flags.FLAGS"),
    ],
)
def test_refused(rule, name, text):
    assert rule(Source(name=name, text=text))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (UP, "errors", "import json"),
        (UP, "models.llama", "from isara_jax.models import layers"),
        (UP, "models.llama", "from isara_jax.runtime.mesh import place"),
        (UP, "main", "from isara_jax.errors import InputError"),
        (OWNED, "retrieval.search", "from scann import scann_ops_pybind"),
        (OWNED, "runtime.mesh", "from jax.sharding import Mesh"),
        (OWNED, "align", "from absl import app, logging"),
        (OWNED, "align", "import jax\ncompiled = jax.jit(f)"),
    ],
)
def test_allowed(rule, name, text):
    assert rule(Source(name=name, text=text)) == []


def test_jax_is_found_through_the_project_s_own_imports():
    texts = {
        "": "",
        "prompts": "from isara_jax.runtime import words",
        "runtime": "from isara_jax.runtime import mesh",
        "runtime.mesh": "def f():\n    import jax.numpy",
        "runtime.words": "import json",
        "filters": "import numpy",
    }
    sources = {name: Source(name=name, text=text) for name, text in texts.items()}
    assert way_to_jax("prompts", sources) == [
        "prompts",
        "runtime",
        "runtime.mesh",
        "jax.numpy",
    ]
    assert way_to_jax("runtime.words", sources) != []
    assert way_to_jax("filters", sources) == []
