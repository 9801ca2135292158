from .beam import BeamState as BeamState, search as search, start as start
from .decode import decode as decode, empty_state as empty_state
from .engine import Engine as Engine
from .kv_cache import (
    SlotCache as SlotCache,
    Stack as Stack,
    empty_slots as empty_slots,
    laid_out as laid_out,
    stacked as stacked,
    step as step,
)
from .metrics import (
    Figures as Figures,
    Sizes as Sizes,
    decode_cost as decode_cost,
    prefill_cost as prefill_cost,
    sizes_of as sizes_of,
)
from .padded_batch import plan as plan
from .prefill import (
    advance as advance,
    chunks_of as chunks_of,
    empty_row as empty_row,
    path_capacity as path_capacity,
    widths as widths,
)
from .request import Prompt as Prompt
from .sampling import Completion as Completion, Decoding as Decoding, Ending as Ending
from .scheduler import (
    LEAST_ROWS as LEAST_ROWS,
    Group as Group,
    groups as groups,
    rows_that_fit as rows_that_fit,
    useful_slots as useful_slots,
)
from .scoring import Scored as Scored, score as score
