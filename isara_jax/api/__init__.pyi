from .alignment import (
    AlignConfig as AlignConfig,
    Alignment as Alignment,
    align as align,
)
from .engine import Engine as Engine
from .evaluating import Evaluation as Evaluation, evaluate as evaluate
from .finetuning import finetune as finetune
from .loaded_model import LoadedModel as LoadedModel, load_model as load_model
