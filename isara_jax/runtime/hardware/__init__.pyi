from .compilation import (
    compiled as compiled,
    enable_compilation_cache as enable_compilation_cache,
)
from .memory import free_bytes as free_bytes, trim_malloc as trim_malloc
from .peak_rates import (
    PeakRates as PeakRates,
    device_peak_rates as device_peak_rates,
    mesh_peak_rates as mesh_peak_rates,
)
from .platforms import skip_absent_tpus as skip_absent_tpus
