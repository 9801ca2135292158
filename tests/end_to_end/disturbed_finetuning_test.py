"""A finetuning that is killed ten times, its newest state damaged every time.

It ends like one that nothing disturbs: to the bit on the same mesh, to rounding where
it goes on with other devices.
"""

import random

import numpy as np
import pytest
from finetuning_rig import tiny_trainable
from stored_trees import assert_same, flip_a_byte
from tiny_llama import tiny_llama

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.state_checkpoints import CheckpointConfig
from isara_jax.finetuning import Finetuner
from isara_jax.models.checkpoints.load import named_tensors
from isara_jax.models.model_handle import ModelHandle
from isara_jax.run.workdir import RoundFolder
from isara_jax.runtime.files.records import Records
from isara_jax.runtime.mesh import make_mesh

pytestmark = pytest.mark.slow

KILLS = 10
EXAMPLES = [
    TrainingExample(
        id=f"r01-{n:04d}", prompt_tokens=(5, 6 + n, 7), answer_tokens=(20 + n, 30, 2)
    )
    for n in range(12)
]
CONFIG = FinetuneConfig(
    learning_rate=1e-3, train_batch=8, accumulation=1, epochs=6, remat="none"
)
STEPS = 12


class Killed(Exception):
    """As far as the finetuning can tell, the end."""


def finetuned(folder, *, devices):
    return Finetuner(
        trainable=tiny_trainable(),
        config=CONFIG,
        saving=CheckpointConfig(train_save_steps=1),
        seed=3,
        mesh=make_mesh(data=devices, model=1),
        stop_requested=lambda: False,
    ).finetune(
        ModelHandle(tiny_llama),
        EXAMPLES,
        round_index=1,
        folder=folder,
        stage="finetuning",
    )


def killed_after(step, folder, *, devices, monkeypatch):
    """Finetunes until the step is taken, but not yet saved."""

    def note(records, lines):
        if [line["step"] for line in lines] == [step]:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Records, "append", note)
        with pytest.raises(Killed):
            finetuned(folder, devices=devices)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = RoundFolder(tmp_path_factory.mktemp("undisturbed") / "round_01")
    model = finetuned(folder, devices=2)()
    assert len(folder.metrics.read()) == STEPS
    return model


@pytest.mark.parametrize("devices", [(2,), (8, 2, 1)])
def test_ten_kills_with_a_damaged_state_each_change_nothing(
    undisturbed, tmp_path, monkeypatch, caplog, devices
):
    folder, chance = RoundFolder(tmp_path / "round_01"), random.Random(6785)
    kills = sorted(chance.sample(range(1, STEPS), KILLS))
    for number, step in enumerate(kills):
        here = devices[number * len(devices) // KILLS]
        killed_after(step, folder, devices=here, monkeypatch=monkeypatch)
        if states := sorted(folder.path.glob("train_state_" + "[0-9]" * 6)):
            flip_a_byte(states[-1])
    model = finetuned(folder, devices=devices[-1])()
    assert caplog.text.count("is not what was written") >= KILLS - 1
    assert [path.name for path in folder.path.glob("train_state_*")] == []
    if devices == (2,):
        assert_same(model, undisturbed)
    theirs = dict(named_tensors(undisturbed))
    for name, value in named_tensors(model):
        error = np.linalg.norm(value - theirs[name]) / np.linalg.norm(theirs[name])
        assert error < 1e-5, name
