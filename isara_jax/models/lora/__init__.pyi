from .lora import (
    Adapters as Adapters,
    abstract_adapters as abstract_adapters,
    fresh_adapters as fresh_adapters,
    merge as merge,
    on_base as on_base,
    quantize_model as quantize_model,
    target_weights as target_weights,
)
from .peft import (
    PeftFolder as PeftFolder,
    open_peft as open_peft,
    read_adapters as read_adapters,
    with_adapters as with_adapters,
    write_adapters as write_adapters,
)
