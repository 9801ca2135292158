from .roofline import (
    ModelSizes as ModelSizes,
    decode_cost as decode_cost,
    model_sizes as model_sizes,
    prefill_cost as prefill_cost,
)
from .throughput import EngineMetrics as EngineMetrics
