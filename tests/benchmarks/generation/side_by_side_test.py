"""Every workload on every side that has a part in it."""

import pytest
from tiny_run import write_tiny_run

from benchmarks.generation import side_by_side as module
from benchmarks.generation.comparison import OURS
from benchmarks.generation.side_by_side import SideBySide
from benchmarks.generation.workloads import NotMeasured, Timing

CPP = "llama.cpp Q4_1"


class FakeLlamaCpp:
    """Stands in for llama.cpp, which reads no folder: a workload takes it a second."""

    def __init__(self, source, *, slots):
        pass

    def runners(self, workload):
        if workload.rules is not None:
            raise NotMeasured("no such rule")
        timing = Timing(
            seconds=1.0, prefill_seconds=1.0, decode_seconds=1.0, decoded_tokens=1
        )
        return {CPP: lambda _: timing}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = write_tiny_run(tmp_path_factory.mktemp("tiny"))
    (run.path / "run.flags").write_text("\n".join(run.flags()))
    return run


def table(run, peers):
    flagfile = str(run.path / "run.flags")
    return SideBySide(str(run.model), slots=4, peers=peers, run=flagfile)


@pytest.fixture(scope="module")
def full(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LlamaCppPeer", FakeLlamaCpp)
        return table(run, ("transformers", "llama_cpp"))


@pytest.mark.parametrize("name", ["decode", "decode1", "prefill", "shared", "mixed"])
def test_every_work_is_measured_on_every_side_in_turns(full, name):
    comparison = full.compare(name, repeats=2, shrink=32)
    by_hand = ["transformers with the prefix by hand"] if name == "shared" else []
    assert list(comparison.values) == [OURS, "transformers", *by_hand, CPP]
    for values in comparison.values.values():
        assert len(values) == 2 and min(values) > 0
    assert len(comparison.shares["decode"]) == 2
    assert comparison.left_out == []


def test_drafting_is_questions_and_answers_as_one(full):
    comparison = full.compare("drafting", repeats=1, shrink=4)
    assert comparison.measure == "seconds"
    assert list(comparison.values) == [OURS, "transformers"]
    assert comparison.left_out == ["no such rule"]
    assert all(0 < share < 1 for (share,) in comparison.shares.values())


def test_a_peer_that_cannot_be_had_is_left_out_of_every_work(run):
    alone = table(run, ("llama_cpp",))
    assert alone.peers == []
    (reason,) = alone.compare("decode1", repeats=1, shrink=32).left_out
    assert reason.startswith("llama.cpp ")


def test_nobody_to_compare_with(run):
    comparison = table(run, ()).compare("decode1", repeats=1, shrink=32)
    assert list(comparison.values) == [OURS] and comparison.left_out == []
