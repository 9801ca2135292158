from .manifest import (
    hash_bytes as hash_bytes,
    hash_inputs as hash_inputs,
    hash_tensors as hash_tensors,
    hash_weights as hash_weights,
    provenance as provenance,
)
from .release import (
    finished_rounds as finished_rounds,
    release_dataset as release_dataset,
    release_model as release_model,
)
from .stages import time_stage as time_stage
from .workdir import RoundFolder as RoundFolder, Workdir as Workdir
