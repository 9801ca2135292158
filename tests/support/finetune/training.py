"""A finetuning of seconds, and what it is trained on."""

import dataclasses

from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.collate import collate
from isara_jax.finetune.data.training_example import TrainingExample
from isara_jax.finetune.trainer import TrainingHooks, finetune
from isara_jax.runtime.mesh import make_mesh

CONFIG = FinetuneConfig(
    learning_rate=1e-3,
    train_batch=4,
    accumulation=1,
    epochs=5,
    clip_norm=0.5,
    remat="none",
)
EXAMPLES = [
    TrainingExample(id="a", prompt_tokens=(5, 6, 7, 8), answer_tokens=(9, 10, 2)),
    TrainingExample(id="b", prompt_tokens=(11,), answer_tokens=(12, 13, 14, 15, 2)),
    TrainingExample(id="c", prompt_tokens=tuple(range(20, 38)), answer_tokens=(2,)),
    TrainingExample(id="d", prompt_tokens=(3, 4), answer_tokens=(50, 2)),
]


def collate_padded(examples, *, shape):
    """Returns the batch of examples that have a row each."""
    return collate([(example,) for example in examples], shape=shape)


def trained_on(
    examples, model, *, config, mesh=None, seed=1, hooks=None, restored=None
):
    """Returns the model of round 1, and the metrics of every step."""
    metrics = []
    trained = finetune(
        model,
        examples,
        config=config,
        round_index=1,
        seed=seed,
        mesh=mesh or make_mesh(data=1, model=1),
        hooks=dataclasses.replace(hooks or TrainingHooks(), on_step=metrics.append),
        restored=restored,
    )
    return trained, metrics
