from .search import (
    BeamState as BeamState,
    beam_batch as beam_batch,
    laid_out as laid_out,
    search as search,
    start as start,
)
