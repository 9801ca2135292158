from .beam import (
    BeamState as BeamState,
    constrain_beams as constrain_beams,
    search as search,
    start as start,
)
from .config import EngineConfig as EngineConfig
from .decode import decode as decode, empty_state as empty_state
from .engine import Engine as Engine
from .kv_cache import (
    KVCache as KVCache,
    LayerBlocks as LayerBlocks,
    constrain_cache as constrain_cache,
    empty_kv_cache as empty_kv_cache,
    make_layer_blocks as make_layer_blocks,
    step as step,
)
from .metrics import (
    EngineMetrics as EngineMetrics,
    ModelSizes as ModelSizes,
    decode_cost as decode_cost,
    model_sizes as model_sizes,
    prefill_cost as prefill_cost,
)
from .prefill import (
    chunk_widths as chunk_widths,
    chunks_for as chunks_for,
    empty_row as empty_row,
    prefill_chunk as prefill_chunk,
    prefix_cache_len as prefix_cache_len,
)
from .programs import EngineProgram as EngineProgram, LargestCall as LargestCall
from .request import Request as Request
from .sampling import (
    Completion as Completion,
    SamplingParams as SamplingParams,
    StopCriteria as StopCriteria,
)
from .scheduler import (
    MIN_ROWS as MIN_ROWS,
    PrefixGroup as PrefixGroup,
    plan_groups as plan_groups,
    rows_that_fit as rows_that_fit,
    useful_slots as useful_slots,
)
from .scoring import Scored as Scored, score as score
