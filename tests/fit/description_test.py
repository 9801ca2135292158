"""The lines about a request and its programs say the numbers that they are given."""

import pytest
from fit_outcomes import outcome

from isara_jax.fit.description import heading, nearest_line, outcome_lines, table_row
from isara_jax.fit.nearest_fit import NearestFit


def test_the_heading_names_model_machine_and_mesh(fit_request):
    line = heading(fit_request(memory=1 << 31), name="tiny")
    assert line.startswith("tiny: 0.00B parameters in float32, on some devices: ")
    assert line.endswith("8 devices of 2.00 GiB each, 8 of data x 1 of model")
    assert "unknown memory" in heading(fit_request(memory=None), name="tiny")


@pytest.mark.parametrize("verdict", ["fits", "does not fit"])
def test_a_program_has_its_verdict_first_and_its_bound(verdict):
    first, *others = outcome_lines(outcome(verdict, needed=3 << 29))
    assert first == f"a program: {verdict}, 1.50 GiB"
    assert any("at least 1.00 s a step" in line for line in others)
    assert others[-1] == "    compiled in 0 s"


def test_the_nearest_fit_has_its_fields_with_a_prefix(fit_request):
    found = NearestFit(
        request=fit_request(),
        outcomes=(outcome("fits"), outcome("fits", needed=2 << 30)),
        changes={"remat": "full", "train_batch": "1"},
    )
    line = nearest_line(found, prefix="--")
    assert line.endswith("(2.00 GiB): --remat=full --train_batch=1")
    assert nearest_line(None) == "no setting was found that fits"


def test_a_row_of_a_table():
    assert table_row(["a", "b c"]) == "| a | b c |"
