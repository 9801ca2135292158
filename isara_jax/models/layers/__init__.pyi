from .linear import (
    LoraWeight as LoraWeight,
    Quantisation as Quantisation,
    linear as linear,
    plain as plain,
    quantised as quantised,
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
    score_parameters as score_parameters,
    scored as scored,
)
