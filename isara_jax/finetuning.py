"""Step (d) with its state on the disk: finetune, or go on, or load what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from isara_jax.errors import FieldError, InputError
from isara_jax.finetune import (
    FinetuneConfig,
    Hooks,
    LoraConfig,
    SavedStates,
    SavingConfig,
    StepMetrics,
    TrainingExample,
    abstract_state,
    finetune,
    steps_an_epoch,
)
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
from isara_jax.run import RoundFolder
from isara_jax.runtime import Mesh, abstract_on, dtype_of, progress
from isara_jax.runtime.checkpoint import restore_tree, save_tree


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """What every finetuning of a run shares.

    `abstract` has the shapes of what is trained: a model, or adapters on the `base`.
    """

    abstract: Any
    config: FinetuneConfig
    saving: SavingConfig = field(default_factory=SavingConfig)
    seed: int
    mesh: Mesh
    stop_requested: Callable[[], bool]
    base: Callable[[], Decoder] | None = None

    def finetuned(
        self,
        start: ModelHandle,
        examples: Sequence[TrainingExample],
        *,
        round_index: int,
        folder: RoundFolder,
        stage: str,
    ) -> ModelHandle:
        """Returns M_t: from its checkpoint, or made from `start`, which it consumes.

        A finetuning that was stopped goes on from the state that it saved.
        """
        trained, states = None, SavedStates(folder.path, config=self.saving)
        if folder.checkpoint.exists():
            start.drop()
        else:
            with states:
                trained = self._finetune(
                    start,
                    examples,
                    round_index=round_index,
                    folder=folder,
                    stage=stage,
                    states=states,
                )
            save_tree(folder.checkpoint, trained)
        states.remove()
        return self._held(lambda: self.saved(folder), trained)

    def saved(self, folder: RoundFolder) -> Any:
        """Loads the model or the adapters that a finetuning has left in its folder.

        Raises:
          InputError: it is damaged; the text says how to make it again.
        """
        target = abstract_on(self.abstract, self.mesh)
        try:
            return restore_tree(folder.checkpoint, target)
        except InputError as error:
            raise InputError(
                f"{error}: remove it and run the same command again, which "
                "makes the same model anew"
            ) from None

    def _held(self, load: Callable[[], Any], trained: Any) -> ModelHandle:
        base, mesh = self.base, self.mesh
        if base is None:
            return ModelHandle(load, trained)
        return LoraModelHandle(
            load,
            trained,
            merge=lambda adapters: merge(base(), adapters, mesh=mesh),
        )

    def _finetune(
        self,
        start: ModelHandle,
        examples: Sequence[TrainingExample],
        *,
        round_index: int,
        folder: RoundFolder,
        stage: str,
        states: SavedStates,
    ) -> Any:
        restored = states.newest(
            abstract_state(self.abstract, config=self.config, mesh=self.mesh)
        )
        done = int(restored.step) if restored else 0
        folder.metrics.keep_first(done)
        steps = planned_steps(self.config, examples=len(examples))
        with progress(stage, total=steps, done=done, unit="steps") as advance:

            def on_step(metrics: StepMetrics) -> None:
                folder.metrics.append([metrics.record()])
                advance(1)

            return finetune(
                self.abstract if restored else start.take(),
                examples,
                config=self.config,
                round_index=round_index,
                seed=self.seed,
                mesh=self.mesh,
                restored=restored,
                base=self.base() if self.base else None,
                hooks=Hooks(
                    on_step=on_step,
                    save_due=states.due,
                    save_state=states.save,
                    stop_requested=self.stop_requested,
                ),
            )


def planned_steps(config: FinetuneConfig, *, examples: int) -> int:
    """Returns the optimizer steps of a finetuning in which no example is too long.

    It may stop early.
    """
    return config.epochs * steps_an_epoch(examples, config=config)


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """M_0, whenever it is needed, and what a `Tuner` needs of it."""

    start: Callable[[], ModelHandle]
    abstract: Any
    base: Callable[[], Decoder] | None = None


def make_trainable(
    source: OpenedModel,
    config: LoraConfig,
    *,
    adapter: Path | None,
    dtype: str,
    seed: int,
    mesh: Mesh,
) -> Trainable:
    """Returns what is trained; weights are loaded when they are needed.

    Raises:
      FieldError: `lora_targets` or `adapter` does not suit the model.
    """
    model = abstract_model(source.config, dtype=dtype)
    load = partial(load_model, source, dtype=dtype, mesh=mesh)
    if not config.lora_rank:
        merged = source if adapter is None else source.with_adapter(adapter)
        load = partial(load_model, merged, dtype=dtype, mesh=mesh)
        return Trainable(start=lambda: ModelHandle(load), abstract=model)
    weights = _target_weights(config, model)
    if adapter is not None:
        peft = open_peft(adapter, model.config)
        _validate_adapter(adapter, peft, config=config, weights=weights)
    sizes: dict[str, Any] = {"rank": config.lora_rank, "alpha": config.lora_alpha}
    # One base for all rounds; M_0 is of the model as it is, quantized or not.
    base = ModelHandle(load)
    pretrained: Callable[[], Decoder] = base
    if config.base_dtype != "keep":
        base, pretrained = ModelHandle(partial(load, quantize=config.base_dtype)), load

    def fresh() -> Adapters:
        key = jax.random.key(seed)
        return fresh_adapters(model, weights, key=key, mesh=mesh, **sizes)

    def start() -> ModelHandle:
        if adapter is None:  # fresh ones add nothing
            return LoraModelHandle(fresh, merge=lambda _: pretrained())
        return LoraModelHandle(
            partial(read_adapters, peft, model, mesh=mesh),
            merge=lambda adapters: merge(pretrained(), adapters, mesh=mesh),
        )

    return Trainable(
        start=start, base=base, abstract=abstract_adapters(model, weights, **sizes)
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
            start=lambda: ModelHandle(lambda: jax.tree.map(jnp.copy, model)),
            abstract=abstract,
        )
    weights = _target_weights(config, abstract)
    sizes: dict[str, Any] = {"rank": config.lora_rank, "alpha": config.lora_alpha}

    def fresh() -> Adapters:
        key = jax.random.key(seed)
        return fresh_adapters(abstract, weights, key=key, mesh=mesh, **sizes)

    return Trainable(
        start=lambda: LoraModelHandle(fresh, merge=lambda _: model),
        base=lambda: model,
        abstract=abstract_adapters(abstract, weights, **sizes),
    )


def _target_weights(config: LoraConfig, model: Decoder) -> tuple[str, ...]:
    try:
        return target_weights(model, config.targets)
    except InputError as error:
        raise FieldError("lora_targets", config.lora_targets, str(error)) from None


def _validate_adapter(
    adapter: Path, peft: PeftFolder, *, config: LoraConfig, weights: Sequence[str]
) -> None:
    """Refuses adapters that are not what is to be trained."""
    scale = config.lora_alpha / config.lora_rank
    if (config.lora_rank, scale, weights) != (peft.rank, peft.scale, peft.weights):
        raise FieldError(
            "adapter",
            adapter,
            f"is of rank {peft.rank}, alpha {peft.scale * peft.rank:g} and on "
            f"{','.join(peft.weights)}; give these to `lora_rank`, `lora_alpha` and "
            "`lora_targets`",
        )
