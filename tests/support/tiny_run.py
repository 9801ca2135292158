"""A whole run of seconds: a random LLaMA, a random BERT, 12 seeds, 6 held-out items.

The LLaMA is close to uniform over its vocabulary, so what it writes is hostile: broken
UTF-8, control characters, the words that end a continuation, and script elements.
"""

import dataclasses
import json
import os
import re
import resource
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import tokenizers
import transformers
from absl import flags
from absl.testing import flagsaver
from tiny_bert import write_tiny_bert
from tiny_llama import TINY

from isara_jax import main
from isara_jax.models.checkpoints.save import save_hugging_face
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent
HOSTILE = "\u00e9\u2028\u65e5\x00\x85"
SCRIPT = "<script>alert({})</script>"
CHAT_FORMAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nObey.<|im_end|>\n"
    "{% endif %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SEEDS = [
    {
        "question": f"is it true that the {animal} {did} on the {place} ?",
        "answer": f"The {animal} {did} far away from every {place} of the town.",
    }
    for animal in ("cat", "dog", "mouse")
    for did in ("sat", "ran")
    for place in ("mat", "roof")
]
HELDOUT = [
    {
        "question": f"who {did} on the {place} that is far away ?",
        "true": [f"The cat {did} there all day.", f"A dog {did} on it."],
        "false": [f"Nobody has ever {did} there."],
    }
    for did in ("sat", "ran", "slept")
    for place in ("mat", "roof")
]
FLAGS: dict[str, Any] = {
    "rounds": 2,
    "candidates": 8,
    "demos": 3,
    "max_slots": 4,
    "dtype": "float32",
    "question_max_new_tokens": 24,
    "answer_max_new_tokens": 24,
    "question_beams": 1,
    "question_length_penalty": 1.0,
    "question_length_decay_start": 0,
    "question_length_decay_factor": 1.0,
    "answer_beams": 1,
    "answer_length_decay_start": 0,
    "answer_length_decay_factor": 1.0,
    "evaluation_tokens": 12,
    "learning_rate": 1e-3,
    "train_batch": 2,
    "accumulation": 2,
    "train_save_steps": 2,
    "mesh_data": 1,
    "compilation_cache": "",
}
# Changes that leave a run of one round.
SHORT = {"rounds": 1, "baselines": False, "candidates": 4, "train_batch": 4}


@dataclasses.dataclass(frozen=True)
class TinyRun:
    """The files of a run below `path`, and the flags that name them."""

    path: Path

    @property
    def workdir(self) -> Path:
        return self.path / "run"

    @property
    def model(self) -> Path:
        return self.path / "llama"

    @property
    def encoder(self) -> Path:
        return self.path / "bert"

    @property
    def seeds(self) -> Path:
        return self.path / "seeds.jsonl"

    @property
    def heldout(self) -> Path:
        return self.path / "heldout.jsonl"

    def flags(self, **changes: Any) -> list[str]:
        names = ("workdir", "model", "encoder", "seeds", "heldout")
        values = {name: getattr(self, name) for name in names} | FLAGS | changes
        return [f"--{name}={value}" for name, value in values.items()]

    def command(self, **changes: Any) -> list[str]:
        return [sys.executable, "-m", "isara_jax.main", *self.flags(**changes)]

    def start(self, **changes: Any) -> subprocess.Popen[str]:
        """Starts the run as a process of its own, on one device."""
        return subprocess.Popen(
            self.command(**changes),
            cwd=ROOT,
            env=one_device(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def main_in_process(arguments: list[str]) -> int:
    """Parses the flags and runs main; the flags are as before afterwards."""
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        return main.main(main.parse(["isara_jax.main", *arguments]))


def one_device() -> dict[str, str]:
    """Returns a process's environment: no torch, one device, nothing compiled twice."""
    return os.environ | {
        "PYTHONPATH": str(Path(__file__).parent / "without_torch"),
        "XLA_FLAGS": "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def processor_seconds() -> float:
    """Returns what ended child processes worked; it does not count their waiting."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def write_tiny_run(path: Path) -> TinyRun:
    run = TinyRun(path)
    path.mkdir(parents=True, exist_ok=True)
    write_tiny_llama(run.model)
    write_tiny_bert(run.encoder)
    write_jsonl(run.seeds, SEEDS)
    write_jsonl(run.heldout, HELDOUT)
    return run


def write_tiny_llama(folder: Path) -> Llama:
    tokenizer = tiny_tokenizer()
    config = dataclasses.replace(
        TINY,
        vocab_size=len(tokenizer.hugging_face),
        feed_forward=48,
        context=512,
        tied_head=False,
    )
    model = Llama(config, key=jax.random.key(7))
    save_hugging_face(folder, model, tokenizer)
    return model


def tiny_tokenizer() -> Tokenizer:
    """Trains a byte-level BPE tokenizer on the run's own words, and hostile ones."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    words = sorted(set(re.findall(r"[\w.?]+", f"{SEEDS} {HELDOUT} USER ASSISTANT")))
    bpe.train_from_iterator(
        [" ".join([*string.printable, *words]), HOSTILE],
        tokenizers.trainers.BpeTrainer(
            vocab_size=2000,  # so that every word becomes a token
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    bpe.add_tokens([SCRIPT.format(number) for number in range(16)])
    loaded = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        chat_template=CHAT_FORMAT,
    )
    return Tokenizer(hugging_face=loaded, eos=(loaded.eos_token_id,), bos=())


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
