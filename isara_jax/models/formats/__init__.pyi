from .config_reader import ConfigReader as ConfigReader
from .family import Family as Family
from .parameter import _theirs as _theirs, placed as placed
from .safetensors import (
    tensor_readers as tensor_readers,
    write_file as write_file,
    write_safetensors as write_safetensors,
)
from .score_head import (
    SCORE_ATTRIBUTES as SCORE_ATTRIBUTES,
    head_attributes as head_attributes,
    score_formats as score_formats,
    score_head as score_head,
)
from .tensor_map import (
    Layout as Layout,
    TensorMap as TensorMap,
    layer_format as layer_format,
    whole_format as whole_format,
)
from .tensor_source import (
    Weights as Weights,
    open_orbax as open_orbax,
    open_safetensors as open_safetensors,
)
