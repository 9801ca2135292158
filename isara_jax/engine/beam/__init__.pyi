from .search import (
    BeamState as BeamState,
    beam_batch as beam_batch,
    constrain_beams as constrain_beams,
    search as search,
    start as start,
)
