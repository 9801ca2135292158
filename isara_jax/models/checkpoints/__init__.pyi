from .card import (
    front_matter as front_matter,
    licence_text as licence_text,
    write_card as write_card,
)
from .convert import (
    convert_description as convert_description,
    convert_weights as convert_weights,
)
from .load import (
    abstract_model as abstract_model,
    load_model as load_model,
    named_tensors as named_tensors,
)
from .open import OpenedModel as OpenedModel, open_model as open_model
from .save import save_hugging_face as save_hugging_face
from .verify import (
    Difference as Difference,
    arithmetic as arithmetic,
    difference as difference,
    divergence_limit as divergence_limit,
    outputs as outputs,
    text_tokens as text_tokens,
)
