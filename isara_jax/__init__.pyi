from .api import (
    Engine as Engine,
    Evaluation as Evaluation,
    LoadedModel as LoadedModel,
    evaluate as evaluate,
    finetune as finetune,
    load_model as load_model,
)
from .engine import Completion as Completion, SamplingParams as SamplingParams
from .errors import (
    EnvironmentFailure as EnvironmentFailure,
    InputError as InputError,
)
from .evaluation import EvaluationConfig as EvaluationConfig
from .examples import Example as Example, HeldOut as HeldOut
from .finetune import (
    FinetuneConfig as FinetuneConfig,
    LoraConfig as LoraConfig,
    StepMetrics as StepMetrics,
)

__version__: str
