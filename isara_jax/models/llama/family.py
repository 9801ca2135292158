"""The LLaMA family as one value, for the table in `models.families`."""

from isara_jax.models.formats import Family, GgufFormat
from isara_jax.models.llama.gguf import open_gguf_tensors, read_gguf_config
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
    gguf=GgufFormat(
        architecture="llama",
        read_config=read_gguf_config,
        open_tensors=open_gguf_tensors,
    ),
)
