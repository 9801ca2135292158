from .cache import (
    SlotCache as SlotCache,
    empty_slots as empty_slots,
    laid_out as laid_out,
    position_bytes as position_bytes,
    step as step,
)
from .dense import RowSlots as RowSlots
from .flash import FlashSlots as FlashSlots
from .layer_blocks import Stack as Stack, stacked as stacked
from .sizes import (
    cache_capacity as cache_capacity,
    round_up as round_up,
    rows_within as rows_within,
)
from .xla import PlainSlots as PlainSlots
