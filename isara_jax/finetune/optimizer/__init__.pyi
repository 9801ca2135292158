from .optimizer import (
    learning_rate_at as learning_rate_at,
    make_optimizer as make_optimizer,
)
from .rounding import round_tree as round_tree
from .spikes import (
    MAX_CONSECUTIVE_SPIKES as MAX_CONSECUTIVE_SPIKES,
    empty_history as empty_history,
    is_spike as is_spike,
    update_history as update_history,
)
