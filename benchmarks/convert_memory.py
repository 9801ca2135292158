"""Measures the memory and time of converting a folder of LLaMA-7B's shape.

    python -m benchmarks.convert_memory --folder=FOLDER --layers=32

The folder gets a model of random bf16 weights in many files (13.5 GB with all 32
layers), which tools.convert turns into either format in a process of its own. All of it
is removed at the end, and needs twice its size on the disk.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from absl import app, flags

from isara_jax.models.formats import tensor_readers, write_safetensors

FOLDER = flags.DEFINE_string(
    "folder", None, "A folder for the models, which must not be there.", required=True
)
LAYERS = flags.DEFINE_integer("layers", 32, "How many of LLaMA-7B's 32 layers to make.")
TARGETS = flags.DEFINE_list("to", ["orbax", "hf"], "The formats to convert into.")

WIDTH, FEED_FORWARD, VOCABULARY = 4096, 11008, 32000
LAYER = {
    "input_layernorm": (WIDTH,),
    "post_attention_layernorm": (WIDTH,),
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (FEED_FORWARD, WIDTH),
    "mlp.up_proj": (FEED_FORWARD, WIDTH),
    "mlp.down_proj": (WIDTH, FEED_FORWARD),
}
SHARD_BYTES = 450_000_000  # about a layer a file
GB = 1e9


def main(_: list[str]) -> None:
    """Makes the model, converts it, and prints a line a format."""
    folder = Path(FOLDER.value)
    folder.mkdir(parents=True)
    source = folder / "source"
    try:
        # In another process: a child's peak begins at its parent's.
        _in_a_process(write_model, source, LAYERS.value)
        size = sum(file.stat().st_size for file in source.iterdir())
        files = len(list(source.glob("*.safetensors")))
        print(f"{LAYERS.value} layers, {size / GB:.1f} GB in {files} files", flush=True)
        for to in TARGETS.value:
            peak, seconds = convert(source, folder / to, to=to)
            if to == "hf":
                _in_a_process(refuse_other_tensors, source, folder / to)
            shutil.rmtree(folder / to)
            print(f"to {to}: {peak / GB:.2f} GB at most, {seconds:.0f} s", flush=True)
    finally:
        shutil.rmtree(folder)


def convert(source: Path, target: Path, *, to: str) -> tuple[int, float]:
    """Converts in a process; returns its peak of resident bytes, and the seconds."""
    began = time.monotonic()
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "isara_jax.tools.convert", f"--source={source}"),
            *(f"--target={target}", f"--to={to}"),
        ],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode:
        raise RuntimeError(f"the conversion to {to} failed")
    return usage.ru_maxrss * 1024, time.monotonic() - began


def write_model(folder: Path, layers: int) -> None:
    """Writes config, tokenizer and weights of a LLaMA-7B of so many layers."""
    folder.mkdir()
    _write_tokenizer(folder)
    write_safetensors(folder, tensors(layers), shard_bytes=SHARD_BYTES)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "vocab_size": VOCABULARY,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))


def tensors(layers: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yields a LLaMA-7B's tensors, each from its own place in one random block."""
    random = np.random.default_rng(0)
    most = VOCABULARY * WIDTH
    block = random.standard_normal(most + 10_000, np.float32).astype(ml_dtypes.bfloat16)
    shapes = {"model.embed_tokens": (VOCABULARY, WIDTH)}
    for layer in range(layers):
        for name, shape in LAYER.items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes |= {"model.norm": (WIDTH,), "lm_head": (VOCABULARY, WIDTH)}
    for number, (name, shape) in enumerate(shapes.items()):
        part = block[number : number + int(np.prod(shape))]
        yield f"{name}.weight", part.reshape(shape).copy()


def refuse_other_tensors(source: Path, written: Path) -> None:
    """Checks that the folders hold the same bytes.

    Raises:
      RuntimeError: they do not.
    """
    before, after = tensor_readers(source), tensor_readers(written)
    if before.keys() != after.keys():
        raise RuntimeError("the conversion wrote other tensors")
    for name, read in before.items():
        if not np.array_equal(read().view(np.uint16), after[name]().view(np.uint16)):
            raise RuntimeError(f"the conversion changed {name}")


def _in_a_process(function: object, *arguments: object) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=function, args=arguments
    )
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{function} failed")


def _write_tokenizer(folder: Path) -> None:
    import tokenizers
    import transformers

    words = {"<unk>": 0, "<s>": 1, "</s>": 2}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(
            tokenizers.models.WordLevel(words, unk_token="<unk>")
        ),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    ).save_pretrained(folder)


if __name__ == "__main__":
    app.run(main)
