"""A finetuning of seconds with its folder, as a round does one."""

import jax
import numpy as np
from tiny_llama import TINY, tiny_llama

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.state_checkpoints import CheckpointConfig
from isara_jax.finetune.trainable import Trainable
from isara_jax.finetuning import Finetuner
from isara_jax.models.checkpoints.load import abstract_model
from isara_jax.models.model_handle import ModelHandle
from isara_jax.runtime.mesh import make_mesh

EXAMPLES = [
    TrainingExample(
        id=f"seed-{n:04d}", prompt_tokens=(5, 6 + n), answer_tokens=(20 + n, 3, 2)
    )
    for n in range(5)
]
CONFIG = FinetuneConfig(learning_rate=1e-2, train_batch=2, accumulation=1, epochs=2)


def finetuned(
    folder,
    *,
    start=None,
    stops=lambda: False,
    round_index=1,
    examples=EXAMPLES,
    trainable=None,
):
    finetuner = Finetuner(
        trainable=trainable or tiny_trainable(),
        config=CONFIG,
        saving=CheckpointConfig(train_save_steps=2),
        seed=3,
        mesh=make_mesh(data=1, model=1),
        stop_requested=stops,
    )
    return finetuner.finetune(
        start or ModelHandle(tiny_llama),
        examples,
        round_index=round_index,
        folder=folder,
        stage="round 1: finetuning",
    )


def tiny_trainable():
    """Returns the tiny LLaMA as what is trained."""
    return Trainable(
        pretrained=lambda: ModelHandle(tiny_llama),
        abstract=abstract_model(TINY, dtype="float32"),
    )


def arrays(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model)]


def same(one, other):
    return all(map(np.array_equal, arrays(one), arrays(other)))


def stop_at_step(number):
    """Asks to stop once so many steps are done."""
    asked = iter(range(1, 100))
    return lambda: next(asked) >= number
