from .compilation import (
    compiled as compiled,
    enable_compilation_cache as enable_compilation_cache,
)
from .memory import free_bytes as free_bytes, trim_malloc as trim_malloc
from .platforms import look_for_present_ones as look_for_present_ones
from .rates import (
    Rates as Rates,
    machine_rates as machine_rates,
    mesh_rates as mesh_rates,
)
