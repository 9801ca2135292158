from .dispatch import (
    PLAIN as PLAIN,
    Kernels as Kernels,
    kernels_for as kernels_for,
    whole_rows as whole_rows,
)
from .nvidia import takes_slots as takes_slots
from .tpu import (
    PAGE as PAGE,
    combined as combined,
    padded_head_size as padded_head_size,
    padded_kv_heads as padded_kv_heads,
    paged_attention as paged_attention,
)
from .xla import (
    KEY_BLOCK as KEY_BLOCK,
    Piece as Piece,
    attention as attention,
    attention_from as attention_from,
    attention_over as attention_over,
    attention_part as attention_part,
    joined as joined,
)
