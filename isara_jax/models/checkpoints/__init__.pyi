from .card import (
    front_matter as front_matter,
    licence_words as licence_words,
    load_licence as load_licence,
    write_card as write_card,
)
from .convert import (
    convert_description as convert_description,
    convert_weights as convert_weights,
)
from .load import (
    abstract_model as abstract_model,
    load_config as load_config,
    load_model as load_model,
    named_tensors as named_tensors,
    open_model_weights as open_model_weights,
)
from .save import save_hugging_face as save_hugging_face
from .verify import (
    Difference as Difference,
    arithmetic as arithmetic,
    difference as difference,
    divergence_limit as divergence_limit,
    outputs as outputs,
    text_tokens as text_tokens,
)
