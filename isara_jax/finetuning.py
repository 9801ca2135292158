"""Step (d) with its state on the disk: finetune, or go on, or load what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isara_jax.errors import InputError
from isara_jax.finetune.config import FinetuneConfig
from isara_jax.finetune.data.batches import TrainingExample
from isara_jax.finetune.data.plan import steps_an_epoch
from isara_jax.finetune.saving import SavedStates, SavingConfig
from isara_jax.finetune.state import abstract_state
from isara_jax.finetune.trainer import Hooks, StepMetrics, finetune
from isara_jax.models.families import LanguageModel
from isara_jax.models.lora.lora import Adapters, merge
from isara_jax.run.workdir import RoundFolder
from isara_jax.runtime.checkpoint import restore_tree, save_tree
from isara_jax.runtime.mesh import Mesh, abstract_on
from isara_jax.runtime.progress import progress


class HeldModel:
    """A model that is loaded when it is first needed, and held once.

    Finetuning reuses its buffers, so it takes the model away from here.
    """

    def __init__(
        self, load: Callable[[], LanguageModel], model: LanguageModel | None = None
    ):
        self._load = load
        self._model = model

    def __call__(self) -> LanguageModel:
        if self._model is None:
            self._model = self._load()
        return self._model

    @property
    def adapters(self) -> Adapters | None:
        """Returns what makes a base into the model, where it is trained as that."""
        return None

    def take(self) -> Any:
        """Returns what is trained, here the model, and forgets it."""
        model, self._model = self(), None
        return model

    def drop(self) -> None:
        """Frees the memory; a later call loads the model again."""
        self._model = None


class AdaptedModel(HeldModel):
    """A model that is trained as adapters on a base which stays.

    `merge` makes the model of the adapters, when it is first needed.
    """

    def __init__(
        self,
        load: Callable[[], Adapters],
        adapters: Adapters | None = None,
        *,
        merge: Callable[[Adapters], LanguageModel],
    ):
        super().__init__(lambda: merge(self.adapters))
        self._load_adapters = load
        self._adapters = adapters

    @property
    def adapters(self) -> Adapters:
        if self._adapters is None:
            self._adapters = self._load_adapters()
        return self._adapters

    def take(self) -> Adapters:
        """Returns the adapters, and forgets them and the model."""
        adapters = self.adapters
        self.drop()
        return adapters

    def drop(self) -> None:
        """Frees the memory; a later call loads and merges again."""
        super().drop()
        self._adapters = None


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
    base: Callable[[], LanguageModel] | None = None

    def finetuned(
        self,
        start: HeldModel,
        examples: Sequence[TrainingExample],
        *,
        round: int,
        folder: RoundFolder,
        stage: str,
    ) -> HeldModel:
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
                    round=round,
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

    def _held(self, load: Callable[[], Any], trained: Any) -> HeldModel:
        base, mesh = self.base, self.mesh
        if base is None:
            return HeldModel(load, trained)
        return AdaptedModel(
            load,
            trained,
            merge=lambda adapters: merge(base(), adapters, mesh=mesh),
        )

    def _finetune(
        self,
        start: HeldModel,
        examples: Sequence[TrainingExample],
        *,
        round: int,
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
                round=round,
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
