from .dispatch import (
    XLA as XLA,
    AttentionBackend as AttentionBackend,
    attention_backend as attention_backend,
    causal_attention as causal_attention,
)
from .nvidia import (
    flash_decode_attention as flash_decode_attention,
    flash_prefill_attention as flash_prefill_attention,
    padded_kv_len as padded_kv_len,
    supports_kv_cache as supports_kv_cache,
)
from .tpu import (
    PAGE as PAGE,
    interleave_kv as interleave_kv,
    padded_head_size as padded_head_size,
    padded_kv_heads as padded_kv_heads,
    paged_attention as paged_attention,
)
from .xla import (
    KEY_BLOCK as KEY_BLOCK,
    KVSegment as KVSegment,
    attention as attention,
    attention_with_lse as attention_with_lse,
    blockwise_attention as blockwise_attention,
    merge_segments as merge_segments,
    segmented_attention as segmented_attention,
)
