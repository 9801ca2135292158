from .linear import (
    LoraWeight as LoraWeight,
    Quantization as Quantization,
    input_axes as input_axes,
    is_linear as is_linear,
    linear as linear,
    quantize_weight as quantize_weight,
    to_dense as to_dense,
)
from .norm import layer_norm as layer_norm, rms_norm as rms_norm
from .rope import (
    RopeScaling as RopeScaling,
    rotary_angles as rotary_angles,
    rotary_frequencies as rotary_frequencies,
    rotate as rotate,
)
from .score_head import (
    ScoreHead as ScoreHead,
    score_labels as score_labels,
    score_parameters as score_parameters,
)
