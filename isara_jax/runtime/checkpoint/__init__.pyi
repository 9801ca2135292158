from .streams import (
    read_tensor as read_tensor,
    save_stream as save_stream,
    stored_tensors as stored_tensors,
)
from .trees import (
    TreeWriter as TreeWriter,
    restore_tree as restore_tree,
    save_tree as save_tree,
)
