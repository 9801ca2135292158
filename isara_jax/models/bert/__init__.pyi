from .model import (
    Encoder as Encoder,
    load_encoder as load_encoder,
    sentence_vectors as sentence_vectors,
)
