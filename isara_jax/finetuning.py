"""Step (d) with its state on the disk: finetune, resume, or load what is done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from isara_jax.errors import InputError
from isara_jax.finetune import (
    CheckpointConfig,
    FinetuneConfig,
    StateCheckpoints,
    StepMetrics,
    Trainable,
    TrainingExample,
    TrainingHooks,
    abstract_state,
    finetune,
    steps_per_epoch,
)
from isara_jax.models import ModelHandle
from isara_jax.run import RoundFolder
from isara_jax.runtime import Mesh, abstract_on, progress
from isara_jax.runtime.checkpoint import restore_tree, save_tree


@dataclass(frozen=True, kw_only=True)
class Finetuner:
    """The settings that all finetunings of a run share."""

    trainable: Trainable
    config: FinetuneConfig
    saving: CheckpointConfig = field(default_factory=CheckpointConfig)
    seed: int
    mesh: Mesh
    stop_requested: Callable[[], bool]

    def finetune(
        self,
        model: ModelHandle,
        examples: Sequence[TrainingExample],
        *,
        round_index: int,
        folder: RoundFolder,
        stage: str,
    ) -> ModelHandle:
        """Returns M_t, trained from `model`, whose buffers it takes.

        A finetuning that is done is loaded from its checkpoint when needed; one that
        was stopped resumes from the last state that it saved.

        Raises:
          StopRequested: the run was asked to stop, and the state is saved.
        """
        trained, states = None, StateCheckpoints(folder.path, config=self.saving)
        if folder.checkpoint.exists():
            model.unload()
        else:
            with states:
                trained = self._train(
                    model,
                    examples,
                    round_index=round_index,
                    folder=folder,
                    stage=stage,
                    states=states,
                )
            save_tree(folder.checkpoint, trained)
        states.delete_all()
        return self.trainable.handle(
            lambda: self._load(folder), trained, mesh=self.mesh
        )

    def _load(self, folder: RoundFolder) -> Any:
        """Loads the model, or the adapters, of a round's checkpoint."""
        target = abstract_on(self.trainable.abstract, self.mesh)
        try:
            return restore_tree(folder.checkpoint, target)
        except InputError as error:
            raise InputError(
                f"{error}: remove it and run the same command again, which "
                "makes the same model anew"
            ) from None

    def _train(
        self,
        model: ModelHandle,
        examples: Sequence[TrainingExample],
        *,
        round_index: int,
        folder: RoundFolder,
        stage: str,
        states: StateCheckpoints,
    ) -> Any:
        abstract, base = self.trainable.abstract, self.trainable.base
        restored = states.restore_latest(
            abstract_state(abstract, config=self.config, mesh=self.mesh)
        )
        done = int(restored.step) if restored else 0
        folder.metrics.keep_first(done)
        steps = planned_steps(self.config, examples=len(examples))
        with progress(stage, total=steps, done=done, unit="steps") as advance:

            def on_step(metrics: StepMetrics) -> None:
                folder.metrics.append([metrics.record()])
                advance(1)

            return finetune(
                abstract if restored else model.donate(),
                examples,
                config=self.config,
                round_index=round_index,
                seed=self.seed,
                mesh=self.mesh,
                restored=restored,
                base=base() if base else None,
                hooks=TrainingHooks(
                    on_step=on_step,
                    should_save=states.should_save,
                    save_state=states.save,
                    should_stop=self.stop_requested,
                ),
            )


def planned_steps(config: FinetuneConfig, *, examples: int) -> int:
    """Returns the optimizer steps of a finetuning in which no example is too long.

    It may stop early.
    """
    return config.epochs * steps_per_epoch(examples, config=config)
