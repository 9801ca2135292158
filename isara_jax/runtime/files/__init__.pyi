from .atomic import atomic_dir as atomic_dir
from .records import (
    Records as Records,
    read_json as read_json,
    write_json as write_json,
    write_jsonl as write_jsonl,
    write_text as write_text,
)
from .tensor_stream import Tensors as Tensors, group_by_bytes as group_by_bytes
