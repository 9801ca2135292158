"""The configurations of models: published ones by name, others by their files."""

from isara_jax.models import DecoderConfig
from isara_jax.models.checkpoints import open_model
from isara_jax.models.llama import LlamaConfig
from isara_jax.models.opt import OptConfig
from isara_jax.runtime import locate_shape


def _llama(width: int, layers: int, heads: int, feed_forward: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32_000,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_size=128,
        feed_forward=feed_forward,
        context=2048,
        rope_base=10_000.0,
        norm_epsilon=1e-6,
        tied_head=False,
    )


# LLaMA 2 70B, which shares each KV head between eight query heads.
_LLAMA_70B = LlamaConfig(
    vocab_size=32_000,
    width=8192,
    layers=80,
    heads=64,
    kv_heads=8,
    head_size=128,
    feed_forward=28_672,
    context=4096,
    rope_base=10_000.0,
    norm_epsilon=1e-5,
    tied_head=False,
)


def _opt(width: int, layers: int, heads: int) -> OptConfig:
    return OptConfig(
        vocab_size=50_272,
        width=width,
        embedding_width=width,
        layers=layers,
        heads=heads,
        feed_forward=4 * width,
        context=2048,
        activation="relu",
        pre_norm=True,
        final_norm=True,
        biases=True,
        tied_head=True,
    )


# As their authors have published them.
MODEL_SHAPES: dict[str, DecoderConfig] = {
    "llama-7b": _llama(4096, 32, 32, 11_008),
    "llama-13b": _llama(5120, 40, 40, 13_824),
    "llama-70b": _LLAMA_70B,
    "opt-6.7b": _opt(4096, 32, 32),
    "opt-66b": _opt(9216, 64, 72),
}


def model_shape(model: str) -> DecoderConfig:
    """Returns the configuration of a published model, or of a folder, file or package.

    No weights are read. Of a folder or a hub id only `config.json` is.

    Raises:
      InputError: there is no such model, or its architecture is unknown.
      EnvironmentFailure: the hub did not deliver.
    """
    if model in MODEL_SHAPES:
        return MODEL_SHAPES[model]
    return open_model(locate_shape(model)).config
