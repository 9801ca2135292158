from .chunking import (
    PrefillSpans as PrefillSpans,
    chunk_widths as chunk_widths,
    chunks_for as chunks_for,
    common_prefix_len as common_prefix_len,
    plan_spans as plan_spans,
)
from .prefix_cache import (
    Prefix as Prefix,
    PrefixCache as PrefixCache,
    empty_prefix_cache as empty_prefix_cache,
    empty_row as empty_row,
    prefill_chunk as prefill_chunk,
    prefix_cache_len as prefix_cache_len,
)
