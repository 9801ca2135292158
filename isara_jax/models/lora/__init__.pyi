from .lora import (
    Adapters as Adapters,
    abstract_adapters as abstract_adapters,
    fresh_adapters as fresh_adapters,
    merge as merge,
    on_base as on_base,
    quantised_model as quantised_model,
    targeted as targeted,
)
from .peft import (
    PeftFolder as PeftFolder,
    open_peft as open_peft,
    read_adapters as read_adapters,
    with_adapters as with_adapters,
    write_adapters as write_adapters,
)
