from .manifest import (
    facts as facts,
    hash_bytes as hash_bytes,
    hash_inputs as hash_inputs,
    hash_tensors as hash_tensors,
    hash_weights as hash_weights,
)
from .release import (
    finished_rounds as finished_rounds,
    release_dataset as release_dataset,
    release_model as release_model,
)
from .stages import timed as timed
from .workdir import RoundFolder as RoundFolder, Workdir as Workdir
