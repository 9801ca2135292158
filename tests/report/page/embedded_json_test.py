import json
import math

import fake_run
import pytest
from hypothesis import given, strategies as st

from isara_jax.report.page.embedded_json import embed_run, json_for_html
from isara_jax.report.run_data.read import read_run


@given(st.recursive(st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_json_survives_and_holds_nothing_that_html_reads(value):
    text = json_for_html(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set(text) & set("<>&")


@pytest.mark.parametrize(
    "text", ["</script>", "<!--", "]]>", "\u2028\u2029", "\ud800", "&lt;", "\0"]
)
def test_hostile_texts_survive(text):
    assert json.loads(json_for_html([text])) == [text]
    assert "<" not in json_for_html([text])


def test_samples_come_in_the_order_they_were_drawn_with_their_demos(finished):
    data = json.loads(embed_run(read_run(finished.workdir)))
    assert [s["id"] for s in data["samples"]] == [
        f"r{round_:02d}-{n:04d}" for round_ in (1, 2) for n in range(5)
    ]
    kept, *_, rejected = data["samples"][:5]
    assert kept["question"] == f"What is question 0 of round 1? {fake_run.HOSTILE}"
    assert kept["rule"] == "" and kept["question_demos"] == ["seed-0000", "seed-0001"]
    assert kept["seed"] == "seed-0000" and kept["similarity"] == 0.5
    assert (rejected["rule"], rejected["reason"]) == ("duplicate", fake_run.HOSTILE)
    assert data["seeds"][1][0] == "seed-0001"


def test_heldout_answers_stand_side_by_side(finished):
    finished.object(
        "round_02/evaluation.json",
        {"model": "ISARA round 2", "items": 0, "metrics": {}, "answers": []},
    )
    data = json.loads(embed_run(read_run(finished.workdir)))
    assert data["models"][-1] == "ISARA round 2"
    first = data["heldout"][0]
    assert first["question"] == "Held-out question 0?"
    assert first["reference"] == "Reference 0"
    assert first["answers"][0]["text"].startswith("pretrained says")
    assert first["answers"][0]["nll"] == 3.0
    assert first["answers"][-1] is None


def test_numbers_that_json_cannot_spell_are_null(finished):
    broken = fake_run.sample(1, 0, nearest_seed_similarity=math.nan)
    finished.lines("round_01/kept.jsonl", [broken])
    data = json.loads(embed_run(read_run(finished.workdir)))
    assert data["samples"][0]["similarity"] is None
