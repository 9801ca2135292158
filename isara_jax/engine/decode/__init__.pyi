from .compaction import (
    decoded_narrowly as decoded_narrowly,
    narrow_rows as narrow_rows,
    rows_to_keep as rows_to_keep,
)
from .state import (
    SlotState as SlotState,
    empty_state as empty_state,
    insert as insert,
    share as share,
)
from .step import decode as decode
