from .roofline import (
    Sizes as Sizes,
    decode_cost as decode_cost,
    prefill_cost as prefill_cost,
    sizes_of as sizes_of,
)
from .throughput import Figures as Figures
