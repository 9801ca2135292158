from .search import search as search
from .state import (
    BeamState as BeamState,
    beam_backend as beam_backend,
    empty_beams as empty_beams,
    search_results as search_results,
)
