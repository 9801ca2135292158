from .compilation import compiled as compiled, keep_compiled as keep_compiled
from .memory import free_bytes as free_bytes, give_back as give_back
from .platforms import look_for_present_ones as look_for_present_ones
from .rates import (
    Rates as Rates,
    machine_rates as machine_rates,
    mesh_rates as mesh_rates,
)
