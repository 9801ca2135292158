from .decoder import (
    Attend as Attend,
    Decoder as Decoder,
    DecoderConfig as DecoderConfig,
    Remat as Remat,
    hidden_states as hidden_states,
    left_padded_positions as left_padded_positions,
    pooled_scores as pooled_scores,
)
from .decoder_cached import (
    LeftPaddedCache as LeftPaddedCache,
    extend as extend,
    layers_of as layers_of,
    prefill as prefill,
    run_blocks as run_blocks,
)
from .model_handle import LoraModelHandle as LoraModelHandle, ModelHandle as ModelHandle
