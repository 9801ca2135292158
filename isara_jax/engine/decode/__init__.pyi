from .batch import (
    DecodeBatch as DecodeBatch,
    insert as insert,
    share_prefix as share_prefix,
)
from .compaction import (
    decode_compacted as decode_compacted,
    program_key as program_key,
    rows_to_keep as rows_to_keep,
)
from .state import (
    DecodeState as DecodeState,
    empty_state as empty_state,
)
from .step import decode as decode
