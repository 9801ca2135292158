from .config_reader import ConfigReader as ConfigReader
from .family import Family as Family, GgufFormat as GgufFormat
from .parameter import read_parameter as read_parameter
from .safetensors import (
    tensor_readers as tensor_readers,
    write_file as write_file,
    write_safetensors as write_safetensors,
)
from .score_head import (
    SCORE_ATTRIBUTES as SCORE_ATTRIBUTES,
    architecture_attributes as architecture_attributes,
    score_head as score_head,
    score_tensors as score_tensors,
)
from .tensor_map import (
    Layout as Layout,
    TensorMap as TensorMap,
    layer_tensor as layer_tensor,
    model_tensor as model_tensor,
)
from .tensor_source import (
    TensorSource as TensorSource,
    open_orbax as open_orbax,
    open_safetensors as open_safetensors,
)
