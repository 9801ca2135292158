"""Our own side: the whole of every text, and the share of the machine's bound."""

import jax
import pytest
from tiny_llama import tiny_llama

from benchmarks.generation.workloads import Rules, Workload
from benchmarks.peers import engine as module
from benchmarks.peers.engine import EngineSide
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.runtime.hardware.peak_rates import PeakRates

WORK = Workload(
    prompts=[[5, 6, 7], [8, 9, 10, 11], [12]],
    new_tokens=[2, 6, 3],
    rows=2,
    measure="seconds",
)


@pytest.fixture(scope="module")
def side():
    return EngineSide(tiny_llama(), slots=2)


def test_every_text_is_as_long_as_the_work_says(side):
    timing = side.run(WORK)
    assert timing.decoded_tokens == 11
    assert timing.prefill_seconds > 0 and timing.decode_seconds > 0
    assert side.done[-1].computed_tokens == 8


def test_a_text_of_another_length_is_no_measurement(side):
    stop_criteria = StopCriteria(eos=tuple(range(97)), stops=(), decode=str)
    rules = Rules(
        sampling_params=SamplingParams(max_new_tokens=6),
        stop_criteria=stop_criteria,
        key=jax.random.key(0),
        prompts=[
            Request(id=str(number), sample_index=number, token_ids=tuple(tokens))
            for number, tokens in enumerate(WORK.prompts)
        ],
    )
    at_once = Workload(**vars(WORK) | {"rules": rules, "new_tokens": [1, 1, 1]})
    side.run(at_once)
    with pytest.raises(RuntimeError, match="other lengths than they were to have"):
        side.run(Workload(**vars(WORK) | {"rules": rules}))


def test_shares_are_those_since_they_were_asked_for(side, monkeypatch):
    rates = PeakRates(bytes_per_second=1e9, flops_per_second=1e9)
    monkeypatch.setattr(module, "device_peak_rates", lambda _: rates)
    side.shares()
    assert side.shares() == {}
    side.run(WORK)
    once = {
        phase: side.done[0].record(rates)[f"{phase}_share_of_bound"]
        for phase in ("prefill", "decode")
    }
    assert side.shares() == pytest.approx(once)
    assert side.done == [] and all(share > 0 for share in once.values())
