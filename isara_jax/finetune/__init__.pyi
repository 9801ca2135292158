from .config import FinetuneConfig as FinetuneConfig
from .data import (
    Batch as Batch,
    TrainingExample as TrainingExample,
    abstract_batch as abstract_batch,
    collate as collate,
    first_rows as first_rows,
    make_plan as make_plan,
    packed_plan as packed_plan,
    steps_an_epoch as steps_an_epoch,
)
from .lora_config import LoraConfig as LoraConfig
from .saving import SavedStates as SavedStates, SavingConfig as SavingConfig
from .state import abstract_state as abstract_state, initial_state as initial_state
from .step import train_step as train_step
from .trainable import (
    Trainable as Trainable,
    make_trainable as make_trainable,
    trainable_in_memory as trainable_in_memory,
)
from .trainer import Hooks as Hooks, StepMetrics as StepMetrics, finetune as finetune
