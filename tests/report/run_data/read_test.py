import pytest

from isara_jax.errors import InputError
from isara_jax.report.run_data.read import read_run
from isara_jax.run.workdir import Workdir


def test_a_finished_run_is_read_whole(finished):
    run = read_run(finished.workdir)
    assert run.name == "fake"
    assert [seed.id for seed in run.seeds] == ["seed-0000", "seed-0001"]
    assert [model.model for model in run.evaluations] == [
        "pretrained",
        "SFT on the seeds",
        "ISARA round 1",
        "ISARA round 2",
    ]
    second = run.rounds[1]
    assert (second.number, second.questions, second.answers) == (2, 5, 5)
    assert (len(second.kept), len(second.rejected), second.filtered) == (3, 2, 5)
    assert {sample.round_index for sample in second.kept + second.rejected} == {2}
    assert second.rejected[0].rule == "short_answer"
    assert second.summary.stop
    assert [step.loss for step in run.baselines[1].steps] == [3, 2, 1]
    assert run.evaluations[0].metrics["nll"].low == pytest.approx(2.9)


def test_a_stage_that_was_resumed_is_one_stage(finished):
    first, second = read_run(finished.workdir).stages
    assert (first.name, first.seconds, first.items, first.tokens) == (
        "round_01/questions",
        3.0,
        5,
        60,
    )
    assert second.name == "round_01/answers"


def test_a_run_that_has_only_begun(begun):
    run = read_run(begun.workdir)
    assert run.baselines == run.rounds == run.stages == run.evaluations == ()


def test_a_round_is_read_as_far_as_it_got(begun):
    begun.lines("round_01/questions.jsonl", [{"id": "r01-0000"}] * 4)
    begun.text("round_01/answers.jsonl", '{"id": "r01-0000"}\n{"id": "r01')
    (one,) = read_run(begun.workdir).rounds
    assert (one.questions, one.answers, one.filtered) == (4, 1, 0)
    assert one.evaluation is None and one.summary is None


def test_rounds_are_in_the_order_of_their_numbers(begun):
    for number in (10, 9, 2):
        begun.lines(f"round_{number:02d}/questions.jsonl", [])
    (begun.workdir.path / "round_zero").mkdir()
    assert [one.number for one in read_run(begun.workdir).rounds] == [2, 9, 10]


def test_other_baselines_follow_the_two_known_ones(begun):
    for name in ("icl_knn", "sft", "pretrained"):
        begun.lines(f"baselines/{name}/metrics.jsonl", [])
    names = [baseline.name for baseline in read_run(begun.workdir).baselines]
    assert names == ["pretrained", "sft", "icl_knn"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"workdir=.*manifest.json is missing"):
        read_run(Workdir(tmp_path))


def test_a_damaged_file_is_named(finished):
    finished.text("round_02/evaluation.json", '{"model": ')
    with pytest.raises(InputError, match=r"round_02/evaluation.json: damaged"):
        read_run(finished.workdir)


def test_a_record_without_a_field_is_named(finished):
    finished.lines("round_01/kept.jsonl", [{"id": "r01-0000"}])
    with pytest.raises(InputError, match=r"kept.jsonl: .* lacks the field 'question'"):
        read_run(finished.workdir)
