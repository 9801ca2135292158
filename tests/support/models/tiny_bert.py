"""A BERT of 3 small random layers with its tokenizer, as a Hugging Face folder."""

from pathlib import Path

import torch
import transformers
from changes import write_json

WORDS = "the a cat dog sat ran on mat far away is it true that who what why ?".split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def write_tiny_bert(
    folder: Path, *, pooling_mode: str | None = None
) -> transformers.BertModel:
    """Writes the folder and returns the model, which is the oracle."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        initializer_range=0.3,  # large, so that no part is near to linear
        attn_implementation="eager",
    )
    model = transformers.BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and scales that do something
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    if pooling_mode:
        write_json(folder / "1_Pooling" / "config.json", {pooling_mode: True})
    return model
