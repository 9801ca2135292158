"""What the rounds train: the whole model, or adapters on a base that they share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax

from isara_jax.errors import InputError
from isara_jax.finetune.lora_config import AdapterConfig
from isara_jax.finetuning import AdaptedModel, HeldModel
from isara_jax.models.checkpoints.load import abstract_model, load_config, load_model
from isara_jax.models.families import LanguageModel
from isara_jax.models.lora.lora import (
    Adapters,
    abstract_adapters,
    fresh_adapters,
    merge,
    targeted,
)
from isara_jax.models.lora.peft import PeftFolder, open_peft
from isara_jax.models.peft_adapters import read_adapters
from isara_jax.runtime.mesh import Mesh
from isara_jax.runtime.sources import locate


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
    adapter = locate(config.adapter) if config.adapter else None
    if not config.lora_rank:
        whole = partial(load, adapter=adapter)
        return Pupil(start=lambda: HeldModel(whole), abstract=model)
    kernels = _targeted(config, model)
    if adapter is not None:
        peft = _asked_for(config, open_peft(adapter, model.config), kernels)
    sizes: dict[str, Any] = {"rank": config.lora_rank, "alpha": config.lora_alpha}
    # One base for all rounds; M_0 is of the model as it is, quantised or not.
    base = HeldModel(load)
    pretrained: Callable[[], LanguageModel] = base
    if config.base_dtype != "keep":
        base, pretrained = HeldModel(partial(load, quantise=config.base_dtype)), load

    def fresh() -> Adapters:
        key = jax.random.key(seed)
        return fresh_adapters(model, kernels, key=key, mesh=mesh, **sizes)

    def start() -> HeldModel:
        if adapter is None:  # fresh ones add nothing
            return AdaptedModel(fresh, merge=lambda _: pretrained())
        return AdaptedModel(
            partial(read_adapters, peft, model, mesh=mesh),
            merge=lambda adapters: merge(pretrained(), adapters, mesh=mesh),
        )

    return Pupil(
        start=start, base=base, abstract=abstract_adapters(model, kernels, **sizes)
    )


def _targeted(config: AdapterConfig, model: LanguageModel) -> tuple[str, ...]:
    try:
        return targeted(model, config.targets)
    except InputError as error:
        raise InputError(f"--lora_targets: {error}") from None


def _asked_for(
    config: AdapterConfig, peft: PeftFolder, kernels: Sequence[str]
) -> PeftFolder:
    """Returns the adapters that are given, if they are what is to be trained."""
    scale = config.lora_alpha / config.lora_rank
    if (config.lora_rank, scale, kernels) != (peft.rank, peft.scale, peft.kernels):
        raise InputError(
            f"--adapter={config.adapter}: is of rank {peft.rank}, alpha "
            f"{peft.scale * peft.rank:g} and on {','.join(peft.kernels)}; give these "
            "to --lora_rank, --lora_alpha and --lora_targets"
        )
    return peft
