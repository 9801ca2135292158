"""The programs that are compiled are those that a run would run."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import TINY, tiny_llama

from isara_jax.engine import continuous_batching
from isara_jax.engine.engine import Engine
from isara_jax.engine.prefill import prefix_cache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.completion import StopCriteria
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.finetune import trainer
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.fit.generation import OPEN_TURN, largest_call
from isara_jax.fit.programs import programs_of
from isara_jax.fit.training import train_program
from isara_jax.models.llama.model import Llama
from isara_jax.runtime.mesh import model_shardings

pytestmark = pytest.mark.usefixtures("shapes_for_arrays")
STATIC = ("config", "dtype", "mesh", "static", "kv_len", "beams", "new_tokens")
# The tiny model, with room for the open turn that is reckoned with.
ROOMY = dataclasses.replace(TINY, context=512)


def described(arguments):
    """Returns the shapes, dtypes and places of arrays, real or not."""
    return [
        (np.shape(leaf), str(np.dtype(leaf.dtype)) if not _is_key(leaf) else "key")
        for leaf in jax.tree.leaves(arguments)
    ]


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


class Enough(Exception):
    """What was looked for is noted."""


@pytest.fixture
def noted(monkeypatch):
    """Notes what the first call of each program is given; none is compiled or run."""
    calls = {}

    def watch(module, name, *, last):
        real = getattr(module, name)

        def watched(*arguments, **keywords):
            arrays = {key: keywords[key] for key in keywords if key not in STATIC}
            calls.setdefault(name, described((arguments, arrays)))
            if last:
                raise Enough
            static = {key: keywords[key] for key in keywords if key in STATIC}
            made = jax.eval_shape(partial(real, **static), *arguments, **arrays)
            return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), made)

        monkeypatch.setattr(module, name, watched)

    watch(trainer, "train_step", last=True)
    watch(prefix_cache, "prefill_chunk", last=False)
    watch(continuous_batching, "decode", last=True)
    watch(continuous_batching, "search", last=True)
    return calls


def given(program):
    arguments, keywords = program.lower().args_info
    return described((arguments, keywords))


def on(mesh, config):
    model = tiny_llama() if config is TINY else random_llama(config)
    return jax.device_put(model, model_shardings(model, mesh))


def random_llama(config):
    return jax.jit(lambda: Llama(config, key=jax.random.key(0)))()


def test_the_train_step_is_the_trainer_s(fit_request, noted):
    asked = fit_request()
    examples = [
        TrainingExample(id=str(n), prompt_tokens=(n,), answer_tokens=(1,) * 63)
        for n in range(16)
    ]
    with pytest.raises(Enough):
        trainer.finetune(
            on(asked.mesh, TINY),
            examples,
            config=asked.finetuning,
            round_index=1,
            seed=0,
            mesh=asked.mesh,
        )
    assert given(train_program(asked)) == noted["train_step"]


def written(asked):
    """Continues as many prompts of the greatest length as a step has."""
    engine = Engine(
        model=on(asked.mesh, asked.shape),
        mesh=asked.mesh,
        slots=asked.slots,
        context=asked.shape.context,
        check=lambda: None,
    )
    prompts = [
        Request(id=str(n), sample_index=n, token_ids=(n,) * OPEN_TURN)
        for n in range(asked.prompts)
    ]
    continued = engine.generate(
        prompts,
        sampling_params=asked.sampling_params,
        stop_criteria=StopCriteria(eos=(96,), stops=(), decode=str),
        key=jax.random.key(0),
    )
    with pytest.raises(Enough):
        next(continued)


def test_prompts_and_slots_are_the_engine_s(fit_request, noted):
    asked = fit_request(shape=ROOMY, devices=2)
    _, prompt, sampling_params = programs_of(asked)
    written(asked)
    assert given(prompt) == noted["prefill_chunk"]
    assert given(sampling_params) == noted["decode"]


def test_beams_are_the_engine_s(fit_request, noted):
    sampling_params = SamplingParams(max_new_tokens=8, beams=2)
    asked = fit_request(shape=ROOMY, devices=2, sampling_params=sampling_params)
    _, prompts, search = programs_of(asked)
    written(asked)
    assert given(prompts) == noted["prefill_chunk"]
    assert given(search) == noted["search"]


def test_parts_are_what_a_program_is_given(fit_request):
    program = train_program(fit_request())
    compiled = program.lower().compile()
    held = compiled.memory_analysis().argument_size_in_bytes
    # Some numbers are given besides.
    assert sum(program.argument_bytes.values()) == pytest.approx(held, rel=0.01)


def test_there_are_as_many_slots_as_memory_has_room_for(fit_request):
    assert largest_call(fit_request(shape=ROOMY)).group.rows == 8
    assert largest_call(fit_request(shape=ROOMY, memory=None)).group.rows == 8
    short = fit_request(shape=ROOMY, devices=1, memory=400_000)
    assert 1 <= largest_call(short).group.rows < 8
