"""The rows of the table, and what they say; nothing is compiled."""

from types import SimpleNamespace

import pytest
from fit_outcomes import outcome

from benchmarks.fit_table import COLUMNS, ROWS, Row, cells, row_of
from isara_jax.fit.machines.tpu_slices import slice_named
from isara_jax.fit.model_shapes import MODEL_SHAPES


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("llama-7b,v5e-16", Row(model="llama-7b", slice="v5e-16")),
        ("opt-66b,v4-8,4", Row(model="opt-66b", slice="v4-8", axis=4)),
        (
            "llama-70b,v5p-16,lora,2",
            Row(model="llama-70b", slice="v5p-16", lora=True, axis=2),
        ),
    ],
)
def test_a_row_is_read(text, row):
    assert row_of(text) == row


@pytest.mark.parametrize("text", ROWS)
def test_every_row_is_of_a_known_model_and_slice(text):
    row = row_of(text)
    assert row.model in MODEL_SHAPES
    assert slice_named(row.slice).name == row.slice


def test_a_row_tells_what_does_not_fit():
    request = SimpleNamespace(mesh=SimpleNamespace(shape={"data": 8, "model": 1}))
    short = outcome("does not fit", needed=3 * 2**30)
    told = dict(
        zip(
            COLUMNS,
            cells(Row(model="m", slice="s"), request, [short, short, short]),
            strict=True,
        )
    )
    assert told["step"] == "does not fit"
    assert told["of"] == "3.0 of ?"
    assert told["temporaries"] == told["exchanged a step"] == ""
    assert told["data x model"] == "8 x 1"
