from .machine import (
    Machine as Machine,
    machine_of as machine_of,
    this_host as this_host,
)
from .tpu_slices import (
    Slice as Slice,
    compile_without_chips as compile_without_chips,
    slice_named as slice_named,
)
