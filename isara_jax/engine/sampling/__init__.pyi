from .completion import (
    Completion as Completion,
    StopCriteria as StopCriteria,
    completion_of as completion_of,
    has_stop as has_stop,
)
from .logits_processors import TokenBuffer as TokenBuffer
from .params import (
    SamplingParams as SamplingParams,
    StaticParams as StaticParams,
    TracedParams as TracedParams,
)
from .sample import (
    candidates as candidates,
    sample as sample,
    tokens_beyond_ends as tokens_beyond_ends,
)
