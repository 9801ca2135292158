"""Holds what is forbidden in the package, and in tests, and no linter can see."""

import ast

import pytest
from assertions import TESTS, unchecked_tests
from python_source import PACKAGE, ROOT, Source, is_within, read_sources

FORBIDDEN = {
    "flax.nnx.jit": "plain jax.jit, models are immutable values",
    "flax.nnx.Optimizer": "optax on the model value",
    "jax.pjit": "jax.jit with shardings",
    "jax.experimental.pjit": "jax.jit with shardings",
    "torch": "JAX, torch is the tests' oracle only",
    "sentence_transformers": "isara_jax.models.bert.model",
    "sklearn": "numpy",
    "pickle": "a format that runs no code",
    "cloudpickle": "a format that runs no code",
    "dill": "a format that runs no code",
    "joblib": "a format that runs no code",
    "exec": "code that is written down",
    "eval": "code that is written down",
    "__import__": "an import statement, which the layering test sees",
    "importlib.import_module": "an import statement, which the layering test sees",
}
FORBIDDEN_KEYWORDS = {"trust_remote_code", "allow_pickle"}
FORBIDDEN_WORDS = {
    *("util", "utils", "helper", "helpers", "manager", "managers"),
    *("common", "misc"),
}
MOST_LINES = 350

SOURCES = read_sources()
PAGES = {
    path.name: path
    for ending in ("css", "html", "js")
    for path in (ROOT / PACKAGE).rglob(f"*.{ending}")
}


def nothing_forbidden_is_named(source: Source) -> list[str]:
    return [
        f"line {line}: {name}; use {better}"
        for forbidden, better in FORBIDDEN.items()
        for name, line in source.names
        if is_within(name, forbidden)
    ]


def no_code_comes_with_weights(source: Source) -> list[str]:
    return [
        f"line {node.value.lineno}: {node.arg}="
        for node in ast.walk(source.tree)
        if isinstance(node, ast.keyword)
        and node.arg in FORBIDDEN_KEYWORDS
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]


def nothing_is_asserted(source: Source) -> list[str]:
    return [
        f"line {node.lineno}: assert; raise an error with a sentence instead"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert)
    ]


def imports_are_absolute(source: Source) -> list[str]:
    return [
        f"line {node.lineno}: a relative import, which the layering test cannot see"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def a_name_says_what_is_held(source: Source) -> list[str]:
    words = source.name.replace(".", "_").split("_")
    return [f"{source.name}: {word}" for word in words if word in FORBIDDEN_WORDS]


def a_file_is_short(source: Source) -> list[str]:
    lines = len(source.text.splitlines())
    return [f"{lines} lines, at most {MOST_LINES}"] if lines > MOST_LINES else []


RULES = (
    nothing_forbidden_is_named,
    no_code_comes_with_weights,
    nothing_is_asserted,
    imports_are_absolute,
    a_name_says_what_is_held,
    a_file_is_short,
)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_obeys(rule, name):
    assert rule(SOURCES[name]) == []


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*_test.py")), ids=lambda path: path.stem
)
def test_every_test_checks_something(path):
    assert unchecked_tests(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)
def test_a_page_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert a_file_is_short(Source(name=path.stem, text=text)) == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (nothing_forbidden_is_named, "from flax import nnx\nf = nnx.jit(g)"),
        (nothing_forbidden_is_named, "import flax.nnx as n\n@n.jit\ndef f(): ..."),
        (nothing_forbidden_is_named, "from flax import nnx\nnnx.Optimizer(m, tx)"),
        (nothing_forbidden_is_named, "from jax.experimental.pjit import pjit"),
        (nothing_forbidden_is_named, "import jax\njax.experimental.pjit.pjit(f)"),
        (nothing_forbidden_is_named, "def f():\n    import torch.nn"),
        (nothing_forbidden_is_named, "from pickle import loads"),
        (nothing_forbidden_is_named, "exec('x = 1')"),
        (nothing_forbidden_is_named, "value = [eval(text) for text in texts]"),
        (nothing_forbidden_is_named, "import importlib as i\ni.import_module('jax')"),
        (no_code_comes_with_weights, "load('x', trust_remote_code=True)"),
        (no_code_comes_with_weights, "load('x', trust_remote_code=config.trust)"),
        (no_code_comes_with_weights, "np.load(path, allow_pickle=True)"),
        (nothing_is_asserted, "def f(x):\n    assert x > 0"),
        (imports_are_absolute, "from . import layers"),
        (imports_are_absolute, "def f():\n    from ..models import layers"),
        (a_file_is_short, "x = 1\n" * (MOST_LINES + 1)),
    ],
)
def test_refused(rule, text):
    assert rule(Source(name="models.llama", text=text))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (nothing_forbidden_is_named, "from flax import nnx\nimport jax\njax.jit(f)"),
        (nothing_forbidden_is_named, "from flax import nnx\nmodel = nnx.merge(g, s)"),
        (nothing_forbidden_is_named, "model.eval()\nframe.eval('a + b')"),
        (nothing_forbidden_is_named, "import importlib.metadata"),
        (no_code_comes_with_weights, "load('x', trust_remote_code=False)"),
        (a_file_is_short, "x = 1\n" * MOST_LINES),
    ],
)
def test_allowed(rule, text):
    assert rule(Source(name="models.llama", text=text)) == []


@pytest.mark.parametrize(
    "name", ["models.utils", "text_helpers", "checkpoint_manager", "common", "misc.x"]
)
def test_refused_names(name):
    assert a_name_says_what_is_held(Source(name=name, text=""))


@pytest.mark.parametrize(
    "body",
    [
        "f()",
        "subprocess.run(command, check=True)",
        "raise ValueError('a fake')",
        "only_calls()",
    ],
)
def test_a_test_without_a_check_is_found(body):
    program = f"def only_calls():\n    f()\n\ndef test_a():\n    {body}"
    assert unchecked_tests(program) == ["test_a"]


@pytest.mark.parametrize(
    "body",
    [
        "assert f()",
        "with pytest.raises(ValueError):\n        f()",
        "np.testing.assert_array_equal(f(), g())",
        "mock.assert_called_once()",
        "for x in y:\n        calls_a_check(x)",
        "assert_same(f(), g())  # of tests/support",
    ],
)
def test_a_test_with_a_check_passes(body):
    program = (
        "def check(x):\n    assert x\n\n"
        "def calls_a_check(x):\n    check(x)\n\n"
        f"def test_a():\n    {body}"
    )
    assert unchecked_tests(program) == []
