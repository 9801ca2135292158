"""llama.cpp as a peer writes what the model writes, in slots that are refilled."""

from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import pytest
from pretrained import SMOLLM2, needs_smollm2
from whole_rows import logits_of

from benchmarks.generation.workloads import NotMeasured, Rules, Workload
from benchmarks.peers import llama_cpp_peer as module
from benchmarks.peers.llama_cpp_peer import LlamaCppPeer
from isara_jax.models.checkpoints.load import load_model
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.sources import locate

pytestmark = pytest.mark.optimized

needs_llama_cpp = pytest.mark.skipif(
    find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed (pip install --editable '.[bench]')",
)
BEGINNINGS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "The opposite of hot is",
    "One, two, three, four,",
    "Shakespeare wrote the play Romeo and",
    "The first president of the United States was George",
)


def test_where_it_is_not_installed_that_is_said(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(NotMeasured, match="is not installed"):
        LlamaCppPeer(Path("model.Q4_1.gguf"), slots=2)


def test_it_reads_no_folder(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    with pytest.raises(NotMeasured, match="reads GGUF files only"):
        LlamaCppPeer(Path("folder"), slots=2)


@pytest.fixture(scope="module")
def peer():
    return LlamaCppPeer(locate(SMOLLM2), slots=2)


@pytest.fixture(scope="module")
def prompts():
    tokenizer = open_model(locate(SMOLLM2)).tokenizer
    return [tokenizer.encode(text) for text in BEGINNINGS]


def workload(prompts, **changes):
    new = [4 + number % 3 for number in range(len(prompts))]
    values = {"prompts": prompts, "new_tokens": new, "rows": 2, "measure": "seconds"}
    return Workload(**values | changes)


@needs_llama_cpp
@needs_smollm2
@pytest.mark.slow
def test_the_first_tokens_are_those_of_our_model(peer, prompts):
    model = load_model(
        open_model(locate(SMOLLM2)), dtype="float32", mesh=make_mesh(data=1, model=1)
    )
    width = max(map(len, prompts))
    rows = jnp.array([[0] * (width - len(p)) + list(p) for p in prompts])
    segments = jnp.array([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    best = logits_of(model, rows, segments)[:, -1].argmax(axis=1)
    _, written = peer.write(workload(prompts))
    assert [tokens[0] for tokens in written] == best.tolist()


@needs_llama_cpp
@needs_smollm2
@pytest.mark.slow
def test_a_text_does_not_depend_on_its_slot_or_on_a_copied_beginning(peer, prompts):
    beginning = prompts[0]
    together = [[*beginning, *prompt] for prompt in prompts]
    timing, copied = peer.write(workload(together, shared=len(beginning)))
    _, whole = peer.write(workload(together))
    assert copied == whole
    assert [len(tokens) for tokens in copied] == [4, 5, 6, 4, 5, 6]
    assert timing.decoded_tokens == 30 - 6
    assert 0 < timing.prefill_seconds < timing.seconds
    for prompt, tokens in zip(together, whole, strict=True):
        alone = workload([prompt], new_tokens=[len(tokens)])
        assert peer.write(alone)[1] == [tokens]


@needs_llama_cpp
@needs_smollm2
@pytest.mark.slow
def test_it_is_left_out_where_it_lacks_a_rule(peer, prompts):
    assert list(peer.runners(workload(prompts))) == ["llama.cpp Q4_1"]
    rules = Rules(sampling_params=None, stop_criteria=None, key=None, prompts=())
    with pytest.raises(NotMeasured, match="no rule against repeated n-grams"):
        peer.runners(workload(prompts, rules=rules))
