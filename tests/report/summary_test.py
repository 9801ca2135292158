from isara_jax.report.summary import summary_table


def test_models_are_rows_and_measures_columns(finished):
    lines = summary_table(finished.workdir).splitlines()
    assert lines[0].split()[:4] == ["model", "nll", "rouge_l_difference", "mc1"]
    assert lines[1].split()[:2] == ["(lower)", "(higher)"]
    assert lines[2].split() == [
        *("pretrained", "3.000", "-2.50", "0.500", "0.500"),
        *("0.500", "0.500", "0.500", "0.5"),
    ]
    assert [line[:16].strip() for line in lines[3:6]] == [
        "SFT on the seeds",
        "ISARA round 1",
        "ISARA round 2",
    ]
    assert lines[0].index("nll") + 3 == lines[2].index("3.000") + 5
    assert "round 1: kept 3 of 5 (60%)" in lines
    assert "round 2: kept 3 of 5 (60%), stopped: the last round asked for" in lines
    assert lines[-1].startswith("ISARA round 2 beats the pretrained model")


def test_a_half_finished_run_says_what_there_is(begun):
    begun.lines("round_01/questions.jsonl", [{"id": "r01-0000"}] * 4)
    table = summary_table(begun.workdir)
    assert "no model has been evaluated yet" in table
    assert "round 1: 4 questions and 0 answers so far, not filtered yet" in table


def test_a_measure_that_is_missing_is_a_dash(finished):
    path = finished.workdir.round(2).evaluation
    path.write_text(path.read_text().replace('"mc1": {', '"mc9": {'))
    assert " - " in summary_table(finished.workdir).splitlines()[5]
