from .roofline import (
    ModelSizes as ModelSizes,
    decode_cost as decode_cost,
    model_sizes as model_sizes,
    prefill_cost as prefill_cost,
)
from .throughput import (
    EngineMetrics as EngineMetrics,
    StepMetrics as StepMetrics,
    decode_metrics as decode_metrics,
    prefill_metrics as prefill_metrics,
    timed as timed,
)
