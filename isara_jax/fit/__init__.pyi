from .abstract_arrays import made as made
from .compilation import Outcome as Outcome, judge as judge
from .description import (
    GIB as GIB,
    heading as heading,
    lines_of as lines_of,
    nearest_line as nearest_line,
    table_row as table_row,
)
from .machines import (
    Slice as Slice,
    compile_without_chips as compile_without_chips,
    machine_of as machine_of,
    slice_named as slice_named,
    this_host as this_host,
)
from .model_shapes import SHAPES as SHAPES, shape_of as shape_of
from .nearest import (
    fits as fits,
    nearest as nearest,
    validate_model_axis as validate_model_axis,
)
from .programs import programs_of as programs_of
from .request import FitRequest as FitRequest
