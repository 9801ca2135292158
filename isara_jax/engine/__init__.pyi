from .config import EngineConfig as EngineConfig
from .engine import Engine as Engine
from .metrics import (
    EngineMetrics as EngineMetrics,
    ModelSizes as ModelSizes,
    decode_cost as decode_cost,
    model_sizes as model_sizes,
    prefill_cost as prefill_cost,
)
from .programs import EngineProgram as EngineProgram, LargestCall as LargestCall
from .request import Request as Request
from .sampling import (
    Completion as Completion,
    SamplingParams as SamplingParams,
    StopCriteria as StopCriteria,
)
from .scheduler import MIN_ROWS as MIN_ROWS, useful_slots as useful_slots
from .scoring import (
    LoglikelihoodRequest as LoglikelihoodRequest,
    loglikelihood as loglikelihood,
)
