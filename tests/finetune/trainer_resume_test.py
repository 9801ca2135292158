"""A finetuning that is stopped and restored ends bit for bit like one that is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_llama import tiny_llama

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.state import abstract_state, initial_state
from isara_jax.finetune.trainer import TrainingHooks, finetune
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.signals import StopRequested

EXAMPLES = [
    TrainingExample(
        id=f"r01-{number:04d}",
        prompt_tokens=tuple(range(3, 6 + number)),
        answer_tokens=(number + 40, number + 41, 2),
    )
    for number in range(10)
]


def config(**changes):
    return FinetuneConfig(
        learning_rate=1e-3, train_batch=2, accumulation=2, epochs=2, **changes
    )


class Disk:
    """Keeps copies of the states, and asks to stop after a given step."""

    def __init__(self, *, stop_after=None, every=100):
        self.saved = {}
        self.steps = []
        self.stop_after = stop_after
        self.every = every

    @property
    def hooks(self):
        return TrainingHooks(
            on_step=lambda metrics: self.steps.append(metrics.step),
            should_save=lambda step: step % self.every == 0,
            save_state=self.save,
            should_stop=lambda: len(self.steps) == self.stop_after,
        )

    def save(self, state):
        self.saved[int(state.step)] = jax.tree.map(np.array, state)

    def restore(self, step, *, model, mesh, config):
        target = abstract_state(model, config=config, mesh=mesh)
        return jax.tree.map(
            lambda array, into: jax.device_put(array, into.sharding),
            self.saved[step],
            target,
        )


def run(model, disk, *, config, mesh, restored=None):
    return finetune(
        model,
        EXAMPLES,
        config=config,
        round_index=1,
        seed=7,
        mesh=mesh,
        hooks=disk.hooks,
        restored=restored,
    )


def assert_same_bits(model, other):
    for one, two in zip(jax.tree.leaves(model), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


@pytest.mark.parametrize("devices", [(1, 1), (4, 2)])
def test_a_stopped_finetuning_goes_on_as_if_it_had_not(devices):
    mesh = make_mesh(data=devices[0], model=devices[1])
    undisturbed = run(tiny_llama(), Disk(), config=config(), mesh=mesh)
    disk = Disk(stop_after=3)
    with pytest.raises(StopRequested, match="after step 3"):
        run(tiny_llama(), disk, config=config(), mesh=mesh)
    assert list(disk.saved) == [3]
    restored = disk.restore(3, model=tiny_llama(), mesh=mesh, config=config())
    later = Disk()
    abstract = jax.eval_shape(tiny_llama)
    resumed = run(abstract, later, config=config(), mesh=mesh, restored=restored)
    assert later.steps == [4, 5, 6]
    assert_same_bits(resumed, undisturbed)


def test_a_bf16_model_is_saved_in_fp32():
    mesh = make_mesh(data=1, model=1)

    def model():
        return tiny_llama(dtype=jnp.bfloat16)

    undisturbed = run(model(), Disk(), config=config(), mesh=mesh)
    disk = Disk(stop_after=2)
    with pytest.raises(StopRequested):
        run(model(), disk, config=config(), mesh=mesh)
    assert disk.saved[2].model.embedding.get_value().dtype == np.float32
    restored = disk.restore(2, model=model(), mesh=mesh, config=config())
    resumed = run(model(), Disk(), config=config(), mesh=mesh, restored=restored)
    assert_same_bits(resumed, undisturbed)


def test_the_state_is_saved_every_so_many_steps():
    disk = Disk(every=2)
    mesh = make_mesh(data=1, model=1)
    run(tiny_llama(), disk, config=config(), mesh=mesh)
    # Of 6 steps: after the last the model itself is there.
    assert list(disk.saved) == [2, 4]


def test_a_stop_in_the_last_step_comes_too_late():
    disk = Disk(stop_after=6)
    run(tiny_llama(), disk, config=config(), mesh=make_mesh(data=1, model=1))
    assert disk.steps[-1] == 6
    assert not disk.saved


def test_the_target_of_a_restore_is_what_a_finetuning_starts_with():
    mesh = make_mesh(data=4, model=2)
    model = tiny_llama(dtype=jnp.bfloat16)
    target = abstract_state(jax.eval_shape(lambda: model), config=config(), mesh=mesh)
    state = initial_state(model, config=config(), mesh=mesh)
    assert state.model.norm.get_value().dtype == jnp.float32
    assert jax.tree.structure(target) == jax.tree.structure(state)
    for want, have in zip(jax.tree.leaves(target), jax.tree.leaves(state), strict=True):
        assert (want.shape, want.dtype) == (have.shape, have.dtype)
        assert want.sharding.is_equivalent_to(have.sharding, have.ndim)
    moment = state.optimizer[1].mu.layers.gate.get_value()
    assert moment.addressable_shards[0].data.shape == (2, 8, 32)
