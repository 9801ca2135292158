from .config import RuntimeConfig as RuntimeConfig
from .gguf_file import gguf_metadata as gguf_metadata, read_gguf as read_gguf
from .mesh import (
    Described as Described,
    Mesh as Mesh,
    abstract_on as abstract_on,
    make_mesh as make_mesh,
    model_shardings as model_shardings,
    on_shards as on_shards,
    place_batch as place_batch,
    platform_of as platform_of,
    sharding_for as sharding_for,
)
from .progress import log as log, progress as progress
from .signals import StopRequested as StopRequested, StopSignal as StopSignal
from .sources import ORBAX as ORBAX, locate as locate, locate_shape as locate_shape
from .tokenizer import Tokenizer as Tokenizer, load_tokenizer as load_tokenizer
