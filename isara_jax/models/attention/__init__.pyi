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
    combined as combined,
    padded_head_size as padded_head_size,
    padded_kv_heads as padded_kv_heads,
    paged_attention as paged_attention,
)
from .xla import (
    KEY_BLOCK as KEY_BLOCK,
    KVSegment as KVSegment,
    attention as attention,
    attention_from as attention_from,
    attention_over as attention_over,
    attention_part as attention_part,
    merge_segments as merge_segments,
)
