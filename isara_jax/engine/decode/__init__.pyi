from .compaction import (
    compacted_rows as compacted_rows,
    decode_compacted as decode_compacted,
    rows_to_keep as rows_to_keep,
)
from .state import (
    DecodeState as DecodeState,
    empty_state as empty_state,
    insert as insert,
    share as share,
)
from .step import decode as decode
