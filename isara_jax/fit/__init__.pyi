from .compilation import Outcome as Outcome, compile_and_check as compile_and_check
from .description import (
    GIB as GIB,
    heading as heading,
    nearest_line as nearest_line,
    outcome_lines as outcome_lines,
    table_row as table_row,
)
from .machines import (
    Slice as Slice,
    compile_without_chips as compile_without_chips,
    machine_of as machine_of,
    slice_named as slice_named,
    this_host as this_host,
)
from .model_shapes import MODEL_SHAPES as MODEL_SHAPES, model_shape as model_shape
from .nearest_fit import (
    find_nearest_fit as find_nearest_fit,
    fits as fits,
    validate_model_axis as validate_model_axis,
)
from .programs import programs_of as programs_of
from .request import FitRequest as FitRequest
