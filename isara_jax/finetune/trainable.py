"""What the rounds train: a whole model, or LoRA adapters on a frozen base."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.errors import FieldError, InputError
from isara_jax.finetune.lora_config import LoraConfig
from isara_jax.models import Decoder, LoraModelHandle, ModelHandle
from isara_jax.models.checkpoints import OpenedModel, abstract_model, load_model
from isara_jax.models.lora import (
    Adapters,
    PeftFolder,
    abstract_adapters,
    fresh_adapters,
    merge,
    open_peft,
    read_adapters,
    target_weights,
)
from isara_jax.runtime import Mesh, dtype_of


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """What the rounds train, and the pretrained model M_0 that they begin with.

    Attributes:
      pretrained: returns a handle of M_0, whose weights are loaded when needed.
      abstract: shapes and dtypes of what is trained: a model, or adapters.
      base: returns the frozen model of the adapters; None: the model is trained.
    """

    pretrained: Callable[[], ModelHandle]
    abstract: Any
    base: Callable[[], Decoder] | None = None

    def handle(
        self, load: Callable[[], Any], trained: Any | None, *, mesh: Mesh
    ) -> ModelHandle:
        """Returns a handle of M_t, made of what was trained or of what `load` reads."""
        base = self.base
        if base is None:
            return ModelHandle(load, trained)
        return LoraModelHandle(
            load,
            trained,
            merge=lambda adapters: merge(base(), adapters, mesh=mesh),
        )


def make_trainable(
    source: OpenedModel,
    config: LoraConfig,
    *,
    adapter: Path | None,
    dtype: str,
    seed: int,
    mesh: Mesh,
) -> Trainable:
    """Returns what is trained of a model whose weights are loaded when needed.

    An `adapter` is merged into the model, or trained further if `config` has a rank.

    Raises:
      FieldError: `lora_targets` or `adapter` does not suit the model.
    """
    model = abstract_model(source.config, dtype=dtype)
    load = partial(load_model, source, dtype=dtype, mesh=mesh)
    if not config.lora_rank:
        merged = source if adapter is None else source.with_adapter(adapter)
        load = partial(load_model, merged, dtype=dtype, mesh=mesh)
        return Trainable(pretrained=lambda: ModelHandle(load), abstract=model)
    names = _target_weights(config, model)
    if adapter is not None:
        peft = open_peft(adapter, model.config)
        _validate_adapter(adapter, peft, config=config, names=names)
    # One base for all rounds. M_0 is of the weights as they are, quantized or not.
    base = ModelHandle(load)
    weights: Callable[[], Decoder] = base
    if config.base_dtype != "keep":
        base, weights = ModelHandle(partial(load, quantize=config.base_dtype)), load

    def pretrained() -> ModelHandle:
        if adapter is None:  # fresh adapters add nothing
            fresh = _fresh_adapters(model, names, config=config, seed=seed, mesh=mesh)
            return LoraModelHandle(fresh, merge=lambda _: weights())
        return LoraModelHandle(
            partial(read_adapters, peft, model, mesh=mesh),
            merge=lambda adapters: merge(weights(), adapters, mesh=mesh),
        )

    return Trainable(
        pretrained=pretrained,
        base=base,
        abstract=abstract_adapters(model, names, **_sizes(config)),
    )


def trainable_in_memory(
    model: Decoder, config: LoraConfig, *, seed: int, mesh: Mesh
) -> Trainable:
    """Returns what is trained of a model in memory, which stays as it is.

    Raises:
      FieldError: `base_dtype` is set, which weights are read with, or `lora_targets`
        does not suit the model.
    """
    if config.base_dtype != "keep":
        raise FieldError(
            "base_dtype",
            config.base_dtype,
            "weights are quantized as they are read, and these are in memory",
        )
    abstract = abstract_model(model.config, dtype=str(dtype_of(model)))
    if not config.lora_rank:
        return Trainable(
            pretrained=lambda: ModelHandle(lambda: jax.tree.map(jnp.copy, model)),
            abstract=abstract,
        )
    names = _target_weights(config, abstract)
    fresh = _fresh_adapters(abstract, names, config=config, seed=seed, mesh=mesh)
    return Trainable(
        pretrained=lambda: LoraModelHandle(fresh, merge=lambda _: model),
        base=lambda: model,
        abstract=abstract_adapters(abstract, names, **_sizes(config)),
    )


def _fresh_adapters(
    model: Decoder,
    names: Sequence[str],
    *,
    config: LoraConfig,
    seed: int,
    mesh: Mesh,
) -> Callable[[], Adapters]:
    """Returns a function that makes adapters which add nothing."""

    def make() -> Adapters:
        key = jax.random.key(seed)
        return fresh_adapters(model, names, key=key, mesh=mesh, **_sizes(config))

    return make


def _sizes(config: LoraConfig) -> dict[str, Any]:
    return {"rank": config.lora_rank, "alpha": config.lora_alpha}


def _target_weights(config: LoraConfig, model: Decoder) -> tuple[str, ...]:
    """Returns the names of the weights that get adapters."""
    try:
        return target_weights(model, config.targets)
    except InputError as error:
        raise FieldError("lora_targets", config.lora_targets, str(error)) from None


def _validate_adapter(
    adapter: Path, peft: PeftFolder, *, config: LoraConfig, names: Sequence[str]
) -> None:
    """Refuses an adapter of another rank, scale or targets than the settings'."""
    scale = config.lora_alpha / config.lora_rank
    if (config.lora_rank, scale, names) != (peft.rank, peft.scale, peft.weights):
        raise FieldError(
            "adapter",
            adapter,
            f"is of rank {peft.rank}, alpha {peft.scale * peft.rank:g} and on "
            f"{','.join(peft.weights)}; give these to `lora_rank`, `lora_alpha` and "
            "`lora_targets`",
        )
