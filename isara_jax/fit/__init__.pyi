from .lines import (
    GIB as GIB,
    heading as heading,
    lines_of as lines_of,
    nearest_line as nearest_line,
    table_row as table_row,
)
from .nearest import (
    fits as fits,
    nearest as nearest,
    validate_model_axis as validate_model_axis,
)
from .places import made as made
from .programs import programs_of as programs_of
from .setting import (
    FitRequest as FitRequest,
    machine_of as machine_of,
    this_host as this_host,
)
from .shapes import SHAPES as SHAPES, shape_of as shape_of
from .slices import (
    Slice as Slice,
    compile_without_chips as compile_without_chips,
    slice_named as slice_named,
)
from .verdict import Outcome as Outcome, judge as judge
