"""What the rounds train: the whole model, or adapters on a base that they share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from isara_jax.errors import InputError
from isara_jax.finetune.adapter_settings import AdapterConfig
from isara_jax.models.adapters import (
    Adapters,
    abstract_adapters,
    fresh_adapters,
    merge,
    targeted,
)
from isara_jax.models.families import LanguageModel
from isara_jax.models.load import abstract_model, load_config, load_model
from isara_jax.models.peft_format import open_peft, read_adapters
from isara_jax.runtime.mesh import Mesh
from isara_jax.runtime.sources import locate
from isara_jax.tuning import AdaptedModel, HeldModel


@dataclass(frozen=True, kw_only=True)
class Pupil:
    """M_0, whenever it is needed, and what `tuning.Tuner` is told of the training."""

    start: Callable[[], HeldModel]
    abstract: Any
    base: Callable[[], LanguageModel] | None = None


def make_pupil(
    source: Path, config: AdapterConfig, *, dtype: str, seed: int, mesh: Mesh
) -> Pupil:
    """Returns what is trained; weights are loaded when they are needed.

    Raises:
      InputError: --lora_targets or --adapter does not suit the model.
    """
    model = abstract_model(load_config(source), dtype=dtype)
    load = partial(load_model, source, dtype=dtype, mesh=mesh)
    given = _given(config, model, mesh=mesh)
    if not config.lora_rank:
        whole = load if given is None else lambda: merge(load(), given(), mesh=mesh)
        return Pupil(start=lambda: HeldModel(whole), abstract=model)
    kernels = _targeted(config, model)
    sizes: dict[str, Any] = {"rank": config.lora_rank, "alpha": config.lora_alpha}
    # One base for all rounds; M_0 is of the model as it is, quantised or not.
    base = HeldModel(load)
    pretrained: Callable[[], LanguageModel] = base
    if config.base_dtype != "keep":
        base, pretrained = HeldModel(partial(load, quantise=config.base_dtype)), load
    if given is not None:

        def start() -> HeldModel:
            return AdaptedModel(
                given,
                merge=lambda adapters: merge(pretrained(), adapters, mesh=mesh),
            )
    else:

        def start() -> HeldModel:
            fresh = partial(fresh_adapters, model, kernels, mesh=mesh, **sizes)
            key = jax.random.key(seed)
            # These add nothing yet.
            return AdaptedModel(lambda: fresh(key=key), merge=lambda _: pretrained())

    return Pupil(
        start=start, base=base, abstract=abstract_adapters(model, kernels, **sizes)
    )


def _targeted(config: AdapterConfig, model: LanguageModel) -> tuple[str, ...]:
    try:
        return targeted(model, config.targets)
    except InputError as error:
        raise InputError(f"--lora_targets: {error}") from None


def _given(
    config: AdapterConfig, model: LanguageModel, *, mesh: Mesh
) -> Callable[[], Adapters] | None:
    """Returns what reads --adapter, once it is known to be what is asked for."""
    if not config.adapter:
        return None
    peft = open_peft(locate(config.adapter), model.config)
    if config.lora_rank:
        wanted = (
            config.lora_rank,
            config.lora_alpha / config.lora_rank,
            _targeted(config, model),
        )
        if wanted != (peft.rank, peft.scale, peft.kernels):
            raise InputError(
                f"--adapter={config.adapter}: is of rank {peft.rank}, alpha "
                f"{peft.scale * peft.rank:g} and on {','.join(peft.kernels)}; give "
                "these to --lora_rank, --lora_alpha and --lora_targets"
            )
    return partial(read_adapters, peft, model, mesh=mesh)
