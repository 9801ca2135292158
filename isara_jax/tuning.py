"""Step (d) with its state on the disk: finetune, or go on, or load what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from isara_jax.errors import InputError
from isara_jax.finetune.batches import TrainingExample
from isara_jax.finetune.plan import steps_an_epoch
from isara_jax.finetune.saving import SavedStates, SavingConfig
from isara_jax.finetune.settings import FinetuneConfig
from isara_jax.finetune.state import abstract_state
from isara_jax.finetune.trainer import Hooks, StepMetrics, finetune
from isara_jax.models.families import LanguageModel
from isara_jax.runtime.checkpoint import restore_tree, save_tree
from isara_jax.runtime.mesh import Mesh, abstract_on
from isara_jax.runtime.progress import progress
from isara_jax.workdir import RoundFolder


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

    def take(self) -> LanguageModel:
        """Returns the model and forgets it."""
        model, self._model = self(), None
        return model

    def drop(self) -> None:
        """Frees the memory; a later call loads the model again."""
        self._model = None


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """What every finetuning of a run shares; `abstract` is the model's shapes."""

    abstract: LanguageModel
    config: FinetuneConfig
    saving: SavingConfig = field(default_factory=SavingConfig)
    seed: int
    mesh: Mesh
    stop_requested: Callable[[], bool]

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
        model, states = None, SavedStates(folder.path, config=self.saving)
        if folder.checkpoint.exists():
            start.drop()
        else:
            with states:
                model = self._finetune(
                    start,
                    examples,
                    round=round,
                    folder=folder,
                    stage=stage,
                    states=states,
                )
            save_tree(folder.checkpoint, model)
        states.remove()
        return HeldModel(lambda: self.saved(folder), model)

    def saved(self, folder: RoundFolder) -> LanguageModel:
        """Loads the model that a finetuning has left in its folder.

        Raises:
          InputError: it is damaged; the text says how to make it again.
        """
        target = abstract_on(self.abstract, self.mesh)
        try:
            return restore_tree(folder.checkpoint, target)
        except InputError as error:
            raise InputError(
                f"{error}: remove that folder and run the same command again, which "
                "makes the same model anew"
            ) from None

    def _finetune(
        self,
        start: HeldModel,
        examples: Sequence[TrainingExample],
        *,
        round: int,
        folder: RoundFolder,
        stage: str,
        states: SavedStates,
    ) -> LanguageModel:
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
