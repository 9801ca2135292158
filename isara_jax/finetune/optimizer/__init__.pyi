from .optimizer import (
    learning_rate_at as learning_rate_at,
    make_optimizer as make_optimizer,
)
from .rounding import round_tree as round_tree
from .spikes import (
    PATIENCE as PATIENCE,
    is_spike as is_spike,
    no_losses as no_losses,
    noted as noted,
)
