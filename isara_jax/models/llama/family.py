"""LLaMA as one value, for the table of families."""

from isara_jax.models.formats import Family
from isara_jax.models.llama.huggingface import config_from_hf, config_to_hf, tensor_maps
from isara_jax.models.llama.model import Llama, LlamaConfig

LLAMA = Family(
    label="a LLaMA",
    model_types=("llama", "mistral"),
    config_type=LlamaConfig,
    build=Llama,
    config_from_hf=config_from_hf,
    config_to_hf=config_to_hf,
    tensor_maps=tensor_maps,
)
