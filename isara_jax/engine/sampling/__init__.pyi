from .completion import (
    Completion as Completion,
    Ending as Ending,
    completion_of as completion_of,
    has_stop as has_stop,
)
from .logits_processors import Texts as Texts
from .params import Decoding as Decoding, Form as Form, Strengths as Strengths
from .sample import (
    candidates as candidates,
    choose as choose,
    tokens_beyond_ends as tokens_beyond_ends,
)
