"""The line that tells a comparison."""

from benchmarks.generation.comparison import OURS, Comparison


def of(measure, ours, **theirs):
    comparison = Comparison(workload="work", measure=measure)
    for side, values in {OURS: ours, **theirs}.items():
        for value in values:
            comparison.add(side, value)
    return comparison


def test_rates_are_compared_by_their_medians():
    line = of("decode", [300, 100, 200], torch=[80, 110, 100], cpp=[400]).line
    assert line == (
        "work: isara_jax 200.0 tok/s; torch 100.0 tok/s, ratio 2.00; "
        "cpp 400.0 tok/s, ratio 0.50"
    )


def test_seconds_are_better_when_there_are_fewer():
    line = of("seconds", [2.0], torch=[5.0]).line
    assert line == "work: isara_jax 2.0 s; torch 5.0 s, ratio 2.50"


def test_who_is_left_out_is_told():
    comparison = of("decode", [1.0])
    comparison.left_out.append("cpp is not installed")
    assert comparison.line == (
        "work: isara_jax 1.0 tok/s; left out: cpp is not installed"
    )


def test_shares_are_told_of_what_is_measured():
    for measure, told in {
        "prefill": ", 60% of the prefill bound",
        "decode": ", 20% of the decode bound",
        "seconds": ", 60% of the prefill bound, 20% of the decode bound",
    }.items():
        comparison = Comparison(workload="work", measure=measure)
        for prefill in (0.1, 0.6, 0.9):
            comparison.add(OURS, 1.0, shares={"prefill": prefill, "decode": 0.2})
        unit = "s" if measure == "seconds" else "tok/s"
        assert comparison.line == f"work: isara_jax 1.0 {unit}{told}"


def test_sides_that_were_measured_apart_come_together():
    whole = Comparison(workload="work", measure="")
    whole.join(of("decode", [2.0]))
    theirs = Comparison(workload="work", measure="decode")
    theirs.add("torch", 1.0)
    whole.join(theirs)
    assert whole.line == "work: isara_jax 2.0 tok/s; torch 1.0 tok/s, ratio 2.00"
