from .cache import (
    DenseCache as DenseCache,
    KVCache as KVCache,
    constrain_cache as constrain_cache,
    empty_kv_cache as empty_kv_cache,
    position_bytes as position_bytes,
    step as step,
)
from .dense import DenseKVCache as DenseKVCache
from .flash import FlashKVCache as FlashKVCache
from .layer_blocks import (
    LayerBlocks as LayerBlocks,
    block_sizes as block_sizes,
    make_layer_blocks as make_layer_blocks,
)
from .sizes import (
    bucketed_len as bucketed_len,
    round_up as round_up,
    rows_within as rows_within,
)
from .xla import XlaKVCache as XlaKVCache
