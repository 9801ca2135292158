"""A tiny random model of every variant of the families, as transformers has them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from tiny_opt import OPT_350M

VOCABULARY = 64
LENGTH = 12
WINDOW = 5
LLAMA = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # large, so that no part is near to linear
    "attn_implementation": "eager",
    "pad_token_id": 0,
}
OPT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 48,
    "max_position_embeddings": 64,
    "init_std": 0.3,
    "attn_implementation": "eager",
    "pad_token_id": 1,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# LLaMA 3.1's own numbers.
LONG = LLAMA3 | {"original_max_position_embeddings": 8192}


class ScoreModel(torch.nn.Module):
    """What safe-rlhf calls LlamaModelForScore: a linear head over the last token."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.model = transformers.LlamaModel(transformers.LlamaConfig(**LLAMA))
        self.score_head = torch.nn.Linear(LLAMA["hidden_size"], 1, bias=bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.score_head(self.model(tokens).last_hidden_state[:, -1])

    def save_pretrained(self, folder: Path) -> None:
        """Writes the backbone as transformers does, then the whole over it."""
        import safetensors.torch

        self.model.config.architectures = ["LlamaModelForScore"]
        self.model.config.score_dim = 1
        self.model.config.score_type = "reward"
        self.model.config.do_normalize = False
        self.model.config.bias = self.score_head.bias is not None
        self.model.config.save_pretrained(folder)
        tensors = {name: value.clone() for name, value in self.state_dict().items()}
        safetensors.torch.save_file(tensors, folder / "model.safetensors")


def _llama(**changes) -> Callable[[], torch.nn.Module]:
    config = transformers.LlamaConfig
    return lambda: transformers.LlamaForCausalLM(config(**(LLAMA | changes)))


def _mistral(**changes) -> Callable[[], torch.nn.Module]:
    config = transformers.MistralConfig
    return lambda: transformers.MistralForCausalLM(config(**(LLAMA | changes)))


def _opt(**changes) -> Callable[[], torch.nn.Module]:
    config = transformers.OPTConfig
    return lambda: transformers.OPTForCausalLM(config(**(OPT | changes)))


VARIANTS: dict[str, Callable[[], torch.nn.Module]] = {
    "LLaMA MHA": _llama(num_key_value_heads=4),
    "LLaMA GQA": _llama(),
    "LLaMA MQA": _llama(num_key_value_heads=1),
    "LLaMA tied": _llama(tie_word_embeddings=True),
    "LLaMA with biases": _llama(attention_bias=True, mlp_bias=True),
    "LLaMA with attention biases": _llama(attention_bias=True),
    "LLaMA llama3 scaling": _llama(rope_parameters=LLAMA3),
    "LLaMA linear scaling": _llama(
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "LLaMA 128k context": _llama(max_position_embeddings=131_072, rope_parameters=LONG),
    "Mistral": _mistral(sliding_window=WINDOW),
    "Mistral without window": _mistral(sliding_window=None),
    "OPT": _opt(),
    "OPT 350m": _opt(**OPT_350M),
    "OPT gelu without biases": _opt(activation_function="gelu", enable_bias=False),
    "OPT without final norm": _opt(_remove_final_layer_norm=True),
    "OPT untied": _opt(tie_word_embeddings=False),
    "LLaMA 14 labels": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(**LLAMA, num_labels=14)
    ),
    "Mistral 2 labels": lambda: transformers.MistralForSequenceClassification(
        transformers.MistralConfig(**LLAMA, sliding_window=WINDOW, num_labels=2)
    ),
    "OPT 350m 3 labels": lambda: transformers.OPTForSequenceClassification(
        transformers.OPTConfig(**(OPT | OPT_350M), num_labels=3)
    ),
    "LLaMA score head": lambda: ScoreModel(bias=False),
    "LLaMA score head with bias": lambda: ScoreModel(bias=True),
}


def drawn(variant: str) -> torch.nn.Module:
    """Returns the variant with random weights, its vectors too."""
    torch.manual_seed(0)
    model = VARIANTS[variant]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def outputs(model: torch.nn.Module, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits of every position, or the scores of every row."""
    with torch.no_grad():
        given = model(torch.tensor(np.asarray(tokens)))
    return (given if isinstance(given, torch.Tensor) else given.logits).numpy()


def tensors_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Returns the tensors that a file of the model holds: a tied head is none."""
    tied = model.model.config.tie_word_embeddings
    return {
        name: value.numpy()
        for name, value in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
