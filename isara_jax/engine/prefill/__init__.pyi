from .chunking import (
    Cuts as Cuts,
    chunks_of as chunks_of,
    common_length as common_length,
    cuts_in_order as cuts_in_order,
    widths as widths,
)
from .prefix_cache import (
    Path as Path,
    advance as advance,
    empty_row as empty_row,
    new_path as new_path,
    path_capacity as path_capacity,
)
