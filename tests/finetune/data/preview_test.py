"""The rows as they are printed: from the arrays, packed or not."""

import pytest

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.preview import preview_rows
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.runtime.mesh import make_mesh

WORDS = {5: "Why", 6: " is", 7: "?", 8: " It", 9: " is.", 2: "<eos>"}
EXAMPLES = [
    TrainingExample(id="seed-0000", prompt_tokens=(5, 6, 7), answer_tokens=(8, 9, 2)),
    TrainingExample(id="seed-0001", prompt_tokens=(5, 7), answer_tokens=(8, 2)),
]


def lines(*, rows=9, data=1, examples=EXAMPLES, **changes):
    config = FinetuneConfig(**{"train_batch": 2, "accumulation": 1} | changes)
    found = preview_rows(
        examples,
        rows=rows,
        config=config,
        limit=64,
        seed=1,
        mesh=make_mesh(data=data, model=1),
        spell=lambda id: repr(WORDS[id]),
    )
    return [" ".join(line.split()) for line in found]


FIRST = [
    "1 0 | 'Why' | no",
    "1 1 | ' is' | no",
    "1 2 | '?' | no",
    "1 3 | ' It' | yes",
    "1 4 | ' is.' | yes",
    "1 5 | '<eos>' | yes",
]
SECOND = [
    "0 | 'Why' | no",
    "1 | '?' | no",
    "2 | ' It' | yes",
    "3 | '<eos>' | yes",
]
HEAD = "example position | token | trained?"


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_packed_row(accumulation):
    found = lines(train_batch=2 // accumulation, accumulation=accumulation)
    second = [f"2 {line}" for line in SECOND]
    assert found == ["row 1 of 1: seed-0000, seed-0001", HEAD, *FIRST, *second]


@pytest.mark.parametrize("data", [1, 4])
def test_rows_of_their_own(data):
    changes = {"train_packing": "off", "train_batch": 1, "accumulation": 2}
    found = lines(data=data, **changes)
    second = [f"1 {line}" for line in SECOND]
    blocks = {"seed-0000": FIRST, "seed-0001": second}
    assert found[0].startswith("row 1 of 2: ") and found[1] == HEAD
    first = found[0].split(": ")[1]
    other = ({*blocks} - {first}).pop()
    expected = [*blocks[first], f"row 2 of 2: {other}", HEAD, *blocks[other]]
    assert found[2:] == expected
    assert lines(rows=1, **changes) == found[: 2 + len(blocks[first])]


def test_rows_of_a_group_on_its_device():
    examples = [
        TrainingExample(id=str(n), prompt_tokens=(5, 7), answer_tokens=(8, 2))
        for n in range(8)
    ]
    found = lines(examples=examples, data=2, train_batch=8, train_row_length=6)
    assert found.count(HEAD) == 4
    assert sum(line.endswith("| yes") for line in found) == 16
    assert sum("<eos>" in line for line in found) == 8
