from .abstract_arrays import (
    abstract_keys as abstract_keys,
    abstract_outputs as abstract_outputs,
    abstract_replicated as abstract_replicated,
    abstract_replicated_tree as abstract_replicated_tree,
    abstract_sharded as abstract_sharded,
    bytes_on_device as bytes_on_device,
)
from .config import ModelSource as ModelSource, RuntimeConfig as RuntimeConfig
from .gguf_file import GgufFile as GgufFile, read_gguf as read_gguf
from .mesh import (
    LogicalArray as LogicalArray,
    Mesh as Mesh,
    abstract_on as abstract_on,
    batch_sharding as batch_sharding,
    constrain as constrain,
    logical_shard_map as logical_shard_map,
    make_mesh as make_mesh,
    model_shardings as model_shardings,
    platform_of as platform_of,
    shard_batch as shard_batch,
    sharding_for as sharding_for,
)
from .packaged import locate_packaged as locate_packaged
from .parameters import (
    dtype_of as dtype_of,
    logical_axes as logical_axes,
    map_named_parameters as map_named_parameters,
    map_parameters as map_parameters,
    parameters as parameters,
)
from .progress import log as log, progress as progress
from .signals import StopRequested as StopRequested, StopSignal as StopSignal
from .sources import ORBAX as ORBAX, locate as locate, locate_shape as locate_shape
from .tokenizer import Tokenizer as Tokenizer, load_tokenizer as load_tokenizer
