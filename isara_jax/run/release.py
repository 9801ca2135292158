"""What a run releases: model/ and dataset/, each with a card of its provenance.

Both folders appear by one rename, so a folder that exists is complete.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from isara_jax.models import Decoder
from isara_jax.models.checkpoints import (
    front_matter,
    licence_text,
    named_tensors,
    save_hugging_face,
)
from isara_jax.models.lora import Adapters, write_adapters
from isara_jax.run.workdir import Workdir
from isara_jax.runtime import ORBAX, Tokenizer
from isara_jax.runtime.checkpoint import save_stream
from isara_jax.runtime.files import Records, atomic_dir, read_json, write_text

METHOD = (
    "ISARA (*Human-Instruction-Free LLM Self-Alignment with Limited Samples*, "
    "arXiv 2401.06785), as implemented by isara_jax"
)

# The part of a model's folder that PEFT reads.
ADAPTER = "adapter"
TEXT = {"dtype": "string", "_type": "Value"}
# The features of a kept pair, as `datasets` describes them.
FIELDS = {
    "round": {"dtype": "int32", "_type": "Value"},
    "id": TEXT,
    "question": TEXT,
    "answer": TEXT,
    "question_demos": {"feature": TEXT, "_type": "List"},
    "answer_demos": {"feature": TEXT, "_type": "List"},
    "nearest_seed": TEXT,
    "nearest_seed_similarity": {"dtype": "float32", "_type": "Value"},
    "parent": TEXT,
}


def release_model(
    workdir: Workdir,
    model: Decoder,
    tokenizer: Tokenizer,
    *,
    base: str,
    license: str,
    adapters: Adapters | None = None,
) -> None:
    """Writes model/: a Hugging Face folder, its card, and the same tensors by Orbax.

    `adapters`, which the model has merged, are written to adapter/ in PEFT's format.

    Raises:
      EnvironmentFailure: the disk does not take them.
    """
    with atomic_dir(workdir.model) as folder:
        save_hugging_face(folder, model, tokenizer)
        write_text(
            folder / "README.md", model_card(workdir, base=base, license=license)
        )
        save_stream(folder / ORBAX, named_tensors(model))
        if adapters is not None:
            write_adapters(folder / ADAPTER, adapters, model.config, base=base)


def release_dataset(workdir: Workdir, *, rounds: int, base: str) -> None:
    """Writes dataset/: every kept pair as Parquet that `datasets` loads, and a card."""
    if workdir.dataset.exists():
        return
    import datasets

    datasets.disable_progress_bars()
    pairs = list(kept_pairs(workdir, rounds=rounds))
    with atomic_dir(workdir.dataset) as folder:
        (folder / "data").mkdir()
        columns = {name: [pair[name] for pair in pairs] for name in FIELDS}
        table = datasets.Dataset.from_dict(
            columns, features=datasets.Features.from_dict(FIELDS)
        )
        table.to_parquet(str(folder / "data" / "train.parquet"))
        write_text(folder / "README.md", dataset_card(workdir, pairs, base=base))


def kept_pairs(workdir: Workdir, *, rounds: int) -> Iterator[dict[str, Any]]:
    """Yields the kept pairs of all rounds with their provenance."""
    for round_index in range(1, rounds + 1):
        for record in Records(workdir.round(round_index).kept).read():
            yield {"round": round_index, **record}


def finished_rounds(workdir: Workdir) -> int:
    """Counts the rounds whose summary is written."""
    rounds = 0
    while workdir.round(rounds + 1).summary.exists():
        rounds += 1
    return rounds


def model_card(workdir: Workdir, *, base: str, license: str) -> str:
    """Returns the model's card: its base, method, data, metrics and limits."""
    head = front_matter(
        {
            "library_name": "transformers",
            "license": license or "other",
            "pipeline_tag": "text-generation",
            "tags": ["isara", "self-alignment"],
        }
    )
    flags = read_json(workdir.manifest)["flags"]
    rounds = finished_rounds(workdir)
    generated = sum(_summary(workdir, n)["generated"] for n in range(1, rounds + 1))
    kept = sum(_summary(workdir, n)["kept"] for n in range(1, rounds + 1))
    return f"""{head}
# {workdir.path.resolve().name}: aligned by ISARA

- **Base**: `{base}`, licence {licence_text(license)}
- **Method**: {METHOD}
- **Data**: the seeds of `{flags["seeds"]}`, and {kept} pairs kept of {generated} that
  the model wrote itself over {rounds} rounds; no instruction, label or reward model
- **Prompts**: the template `{flags["template"]}`

## Held-out figures
{_metrics_table(workdir, rounds)}
Intervals are 95 % bootstrap intervals over the held-out items, of one run with the seed
{flags["seed"]}.

## Limits
The pairs were written and answered by the model and were filtered by form alone, so the
model can have learned its own errors. It has not been tested for safety.
"""


def dataset_card(
    workdir: Workdir, pairs: Sequence[Mapping[str, Any]], *, base: str
) -> str:
    """Returns the data set's card: its source and its fields."""
    head = front_matter(
        {
            "configs": [{"config_name": "default", "data_files": "data/train.parquet"}],
            "tags": ["synthetic", "isara", "self-alignment"],
        }
    )
    return f"""{head}
# {workdir.path.resolve().name}: pairs written by a model for its own alignment

{len(pairs)} question-answer pairs that `{base}` and its finetuned successors wrote and
that the filter kept. Method: {METHOD}. No person has checked the answers.

| field | meaning |
|---|---|
| `round`, `id` | the round that wrote the pair, and its number there |
| `question`, `answer` | the pair |
| `question_demos`, `answer_demos` | ids of the examples that stood in the prompts |
| `nearest_seed`, `nearest_seed_similarity` | the closest seed, and the cosine |
| `parent` | the model that wrote it: M_0 is the base, M_t that of round t |
"""


def _metrics_table(workdir: Workdir, rounds: int) -> str:
    folders = [workdir.baseline("pretrained"), workdir.baseline("sft")]
    folders += [workdir.round(t) for t in range(1, rounds + 1)]
    found = [read_json(f.evaluation) for f in folders if f.evaluation.exists()]
    if not found:
        return "None: the run had no held-out set.\n"
    names = list(found[0]["metrics"])
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for evaluation in found:
        cells = [_cell(evaluation["metrics"][name]) for name in names]
        lines.append(f"| {evaluation['model']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(metric: Mapping[str, float]) -> str:
    return f"{metric['value']:.3g} ({metric['low']:.3g} to {metric['high']:.3g})"


def _summary(workdir: Workdir, round_index: int) -> dict[str, Any]:
    summary: dict[str, Any] = read_json(workdir.round(round_index).summary)
    return summary
