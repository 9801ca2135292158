from .atomic import atomic_dir as atomic_dir
from .records import (
    Records as Records,
    read_json as read_json,
    write_json as write_json,
    write_jsonl as write_jsonl,
    write_text as write_text,
)
from .tensor_stream import Tensors as Tensors, in_groups as in_groups
