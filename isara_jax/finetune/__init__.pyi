from .config import FinetuneConfig as FinetuneConfig
from .data import (
    TrainBatch as TrainBatch,
    TrainingExample as TrainingExample,
    abstract_batch as abstract_batch,
    collate as collate,
    pack_steps as pack_steps,
    plan_batches as plan_batches,
    preview_rows as preview_rows,
    steps_per_epoch as steps_per_epoch,
)
from .lora_config import LoraConfig as LoraConfig
from .state import abstract_state as abstract_state, initial_state as initial_state
from .state_checkpoints import (
    CheckpointConfig as CheckpointConfig,
    StateCheckpoints as StateCheckpoints,
)
from .step import train_step as train_step
from .trainable import (
    Trainable as Trainable,
    make_trainable as make_trainable,
    trainable_in_memory as trainable_in_memory,
)
from .trainer import (
    StepMetrics as StepMetrics,
    TrainingHooks as TrainingHooks,
    finetune as finetune,
)
