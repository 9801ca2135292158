"""Algorithm 1: who trains on what from where, the stopping rule, and resumption."""

import importlib
from dataclasses import replace

import pytest
from alignment_rig import BASE, SEEDS, Author, Rig, tiny_loop
from scripted_engine import Interrupted

from isara_jax.align import LoopConfig, align, training_data
from isara_jax.errors import InputError
from isara_jax.examples import Example, Pool
from isara_jax.run import stages
from isara_jax.runtime.hardware.compilation import CompilationStats

# The package's name `align` is the library's function.
module = importlib.import_module("isara_jax.align")


@pytest.fixture
def make_rig(tmp_path, monkeypatch):
    def make(*, bad=(), most_batches=1000, **changes):
        engine = Author(bad, most_batches=most_batches)
        rig = Rig(tiny_loop(tmp_path / "run", **changes), engine)
        engine.take_over(monkeypatch)
        monkeypatch.setattr(module, "evaluate", rig.evaluate)
        return rig

    return make


SEED_IDS = [example.origin for example in SEEDS.examples]
ROUND_1_IDS = [f"r01-{number:04d}" for number in range(4)]
ROUND_2_IDS = [f"r02-{number:04d}" for number in range(4)]


def test_each_round_trains_the_seeds_and_what_it_kept(make_rig):
    rig = make_rig(bad={"r01-0001"})
    align(rig.inputs)
    kept = [id for id in ROUND_1_IDS if id != "r01-0001"]
    assert [note["ids"] for note in rig.notes] == [
        SEED_IDS + kept,
        SEED_IDS + ROUND_2_IDS,
    ]
    assert [note["round"] for note in rig.notes] == [1, 2]


def test_each_round_starts_from_the_previous_model_and_the_last_is_returned(make_rig):
    rig = make_rig(loop={"rounds": 3})
    model = align(rig.inputs)
    starts = [note["start"] for note in rig.notes]
    results = [note["result"] for note in rig.notes]
    assert all(a is b for a, b in zip(starts, [BASE, *results[:2]], strict=True))
    assert model() is results[2]


def test_each_round_may_start_from_the_base(make_rig):
    rig = make_rig(loop={"rounds": 3}, finetuning={"start_from": "base"})
    model = align(rig.inputs)
    assert all(note["start"] is BASE for note in rig.notes)
    assert model() is rig.notes[2]["result"]


def test_each_round_is_evaluated_after_its_finetuning(make_rig):
    rig = make_rig()
    align(rig.inputs)
    assert [name for name, _ in rig.evaluated] == ["ISARA round 1", "ISARA round 2"]
    assert [model for _, model in rig.evaluated] == [n["result"] for n in rig.notes]


def test_the_baselines_come_first_and_the_seeds_alone_are_one(make_rig):
    rig = make_rig(baselines=True, loop={"rounds": 1})
    align(rig.inputs)
    names = [name for name, _ in rig.evaluated]
    assert names == ["pretrained", "SFT on the seeds", "ISARA round 1"]
    assert rig.evaluated[0][1] is BASE
    assert rig.evaluated[1][1] is rig.notes[0]["result"]
    assert rig.notes[0]["ids"] == SEED_IDS and rig.notes[0]["round"] == 1
    assert all(note["start"] is BASE for note in rig.notes)


def test_without_a_heldout_set_there_are_no_baselines(make_rig):
    rig = make_rig(baselines=True, loop={"rounds": 1})
    align(replace(rig.inputs, heldout=()))
    assert len(rig.notes) == 1


POOLS = [
    SEEDS,
    *(
        Pool(
            round_index=round_index,
            examples=(
                Example(
                    question="Why ?", answer="So.", origin=f"r{round_index:02d}-0000"
                ),
            ),
        )
        for round_index in (1, 2)
    ),
]


@pytest.mark.parametrize(
    ("mode", "rounds", "ids"),
    [
        ("seeds_and_latest", 2, [*SEED_IDS, "r02-0000"]),
        ("seeds_and_latest", 1, [*SEED_IDS, "r01-0000"]),
        ("cumulative", 2, [*SEED_IDS, "r01-0000", "r02-0000"]),
        ("latest", 2, ["r02-0000"]),
        ("latest", 1, ["r01-0000"]),
    ],
)
def test_what_a_round_trains_on(make_rig, mode, rounds, ids):
    inputs = make_rig(finetuning={"train_data": mode}).inputs
    data = training_data(inputs, POOLS[: rounds + 1])
    assert [example.id for example in data] == ids


def test_a_pair_is_trained_after_its_open_turn_and_ends_with_eos(make_rig):
    inputs = make_rig().inputs
    first, *_ = training_data(inputs, POOLS)
    decode = inputs.prompt_builder.tokenizer.hugging_face.decode
    assert decode(first.prompt_tokens) == (
        "BEGINNING OF CONVERSATION: USER: Is seed ant a good one ? ASSISTANT:"
    )
    assert decode(first.answer_tokens) == "Seed ant is.<|im_end|>"
    assert first.answer_tokens[-1] == inputs.prompt_builder.tokenizer.eos[0]


def test_the_rounds_end(make_rig):
    rig = make_rig(bad={"r01-0000"}, loop={"alpha": 0.75})
    align(rig.inputs)
    assert rig.outcome(1) == {
        "round": 1,
        "generated": 4,
        "kept": 3,
        "keep_rate": 0.75,
        "alpha": 0.75,
        "stop": False,
        "reason": "kept 75.0% of the candidates, at least alpha = 75.0%",
    }
    assert rig.outcome(2)["reason"] == "all 2 rounds are done"
    assert rig.outcome(2)["stop"] is False


def test_a_round_that_keeps_too_little_is_the_last(make_rig):
    rig = make_rig(bad={"r01-0000", "r01-0003"}, loop={"alpha": 0.75, "rounds": 3})
    model = align(rig.inputs)
    assert rig.outcome(1) == {
        "round": 1,
        "generated": 4,
        "kept": 2,
        "keep_rate": 0.5,
        "alpha": 0.75,
        "stop": True,
        "reason": "kept 50.0% of the candidates, less than alpha = 75.0%",
    }
    assert not rig.inputs.workdir.round(2).path.exists()
    # Its own model is trained, evaluated and returned all the same.
    assert model() is rig.notes[0]["result"] is rig.evaluated[0][1]


def test_nothing_kept_still_trains_the_seeds_and_the_rounds_go_on(make_rig):
    rig = make_rig(bad=set(ROUND_1_IDS))
    align(rig.inputs)
    assert rig.notes[0]["ids"] == SEED_IDS
    assert rig.outcome(1)["kept"] == 0 and rig.outcome(1)["stop"] is False
    assert rig.notes[1]["ids"] == SEED_IDS + ROUND_2_IDS
    demos = {len(r["demos"]) for r in rig.inputs.workdir.round(2).questions.read()}
    assert demos == {2}, "the empty pool of round 1 has none to give"


def test_nothing_kept_and_nothing_else_to_train_on_is_the_end(make_rig):
    rig = make_rig(bad=set(ROUND_1_IDS), finetuning={"train_data": "latest"})
    model = align(rig.inputs)
    assert rig.outcome(1)["stop"] is True
    assert rig.outcome(1)["reason"] == (
        "nothing was kept, so there is nothing to train on"
    )
    assert (rig.notes, rig.evaluated) == ([], []) and model() is BASE


def test_the_demonstrations_of_round_2_hold_one_of_round_1(make_rig):
    rig = make_rig()
    align(rig.inputs)
    second = rig.inputs.workdir.round(2)
    for record in second.questions.read() + second.answers.read():
        kinds = [origin.partition("-")[0] for origin in record["demos"]]
        assert kinds == ["seed", "seed", "r01"]
        assert record["parent"] == "M_1"


STAGES = ["questions", "answers", "finetuning", "evaluation"]


def test_every_stage_leaves_a_line(make_rig):
    rig = make_rig(baselines=True)
    align(rig.inputs)
    assert rig.stages() == [
        "baselines/pretrained/evaluation",
        *(f"baselines/sft/{stage}" for stage in STAGES[2:]),
        *(f"round_01/{stage}" for stage in STAGES),
        *(f"round_02/{stage}" for stage in STAGES),
    ]
    lines = {line["stage"]: line for line in rig.inputs.workdir.stages.read()}
    questions = rig.inputs.workdir.round(1).questions.read()
    assert lines["round_01/questions"]["items"] == 4
    assert lines["round_01/questions"]["tokens"] == sum(
        record["prompt_tokens"] + 2 for record in questions
    )
    assert lines["round_01/finetuning"]["items"] == 7
    assert lines["round_01/finetuning"]["tokens"] == sum(
        len(example) for example in rig.notes[1]["examples"]
    )
    assert lines["round_01/evaluation"]["items"] == 1


def test_compiling_is_a_stage_of_its_own(make_rig, monkeypatch):
    times = iter(range(1000))

    def compiled():
        """Between any two looks a program is compiled, for an hour."""
        count = next(times)
        return CompilationStats(programs=count, seconds=3600.0 * count)

    monkeypatch.setattr(stages, "compiled", compiled)
    rig = make_rig()
    align(rig.inputs)
    lines = rig.inputs.workdir.stages.read()
    compiling = [line for line in lines if line["stage"] == "compiling"]
    assert len(compiling) == len(rig.stages())
    assert {(line["items"], line["seconds"]) for line in compiling} == {(1, 3600.0)}
    assert {line["seconds"] for line in lines if line not in compiling} == {0.0}


@pytest.mark.parametrize("batches", range(8))
def test_a_run_that_is_stopped_and_started_again_ends_the_same(
    make_rig, tmp_path, batches
):
    names = ("questions", "answers", "kept", "rejected")

    def files():
        return {
            f"{t} {name}": (tmp_path / f"run/round_{t:02d}/{name}.jsonl").read_bytes()
            for t in (1, 2)
            for name in names
        }

    align(make_rig(bad={"r01-0002"}).inputs)
    expected = files()
    (tmp_path / "run").rename(tmp_path / "alone")
    with pytest.raises(Interrupted):
        align(make_rig(bad={"r01-0002"}, most_batches=batches).inputs)
    rig = make_rig(bad={"r01-0002"})
    align(rig.inputs)
    assert files() == expected
    assert len(rig.engine.batches) == 8 - batches
    assert rig.stages() == [f"round_{t:02d}/{s}" for t in (1, 2) for s in STAGES]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"candidates": 0}, "candidates=0: must be at least 1"),
        ({"rounds": 0}, "rounds=0: must be from 1 to `demos`=8"),
        ({"rounds": 9}, "rounds=9: must be from 1 to `demos`=8"),
        ({"alpha": -0.1}, "alpha=-0.1: must be from 0 to 1"),
        ({"alpha": float("nan")}, "alpha=nan: must be from 0 to 1"),
    ],
)
def test_wrong_numbers_are_refused(values, message):
    with pytest.raises(InputError) as caught:
        LoopConfig(**values)
    assert str(caught.value).startswith(message)
