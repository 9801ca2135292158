from .align import LoopConfig as LoopConfig
from .api import (
    AlignConfig as AlignConfig,
    Alignment as Alignment,
    Engine as Engine,
    Evaluation as Evaluation,
    LoadedModel as LoadedModel,
    align as align,
    evaluate as evaluate,
    finetune as finetune,
    load_model as load_model,
)
from .engine import (
    Completion as Completion,
    EngineConfig as EngineConfig,
    SamplingParams as SamplingParams,
)
from .errors import (
    EnvironmentFailure as EnvironmentFailure,
    InputError as InputError,
)
from .evaluation import EvaluationConfig as EvaluationConfig
from .examples import Example as Example, HeldOut as HeldOut
from .filters import FilterConfig as FilterConfig
from .finetune import (
    CheckpointConfig as CheckpointConfig,
    FinetuneConfig as FinetuneConfig,
    LoraConfig as LoraConfig,
    StepMetrics as StepMetrics,
)
from .prompts import PromptConfig as PromptConfig
from .retrieval import RetrievalConfig as RetrievalConfig

__version__: str
