from .batch_plan import (
    plan_batches as plan_batches,
    split_validation as split_validation,
    steps_per_epoch as steps_per_epoch,
)
from .collate import (
    Row as Row,
    TrainBatch as TrainBatch,
    abstract_batch as abstract_batch,
    collate as collate,
)
from .packing import pack_steps as pack_steps
from .padding import BatchPlan as BatchPlan
from .preview import preview_rows as preview_rows
from .training_example import (
    TrainingExample as TrainingExample,
    drop_too_long as drop_too_long,
)
