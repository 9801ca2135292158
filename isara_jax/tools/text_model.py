"""A model that writes text, as the commands that generate text open it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isara_jax.errors import InputError
from isara_jax.generation import Generator, make_stop_criteria
from isara_jax.models import Decoder
from isara_jax.models.checkpoints import OpenedModel, load_model, open_model
from isara_jax.prompts import PromptBuilder, Template
from isara_jax.runtime import Mesh, RuntimeConfig, Tokenizer, locate


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A model whose weights are not read yet, merged with the adapter of a folder."""

    name: str
    opened: OpenedModel
    tokenizer: Tokenizer
    adapter: Path | None = None

    def load(self, *, runtime: RuntimeConfig, mesh: Mesh) -> Decoder:
        """Reads the weights, and merges the adapter into them."""
        return load_model(self.opened, dtype=runtime.dtype, mesh=mesh)

    def prompt_builder(self, template: Template) -> PromptBuilder:
        """Returns the builder of prompts that hold no demonstrations."""
        return PromptBuilder(
            tokenizer=self.tokenizer,
            template=template,
            context=self.opened.config.context,
        )

    def generator(
        self,
        template: Template,
        *,
        runtime: RuntimeConfig,
        slots: int,
        mesh: Mesh,
        check: Callable[[], None],
    ) -> Generator:
        """Returns what generates; a template's stop strings end a continuation."""
        return Generator(
            mesh=mesh,
            seed=runtime.seed,
            slots=slots,
            context=self.opened.config.context,
            stop_criteria=make_stop_criteria(self.tokenizer, template),
            check=check,
        )


def open_text_model(name: str, *, adapter: str = "") -> TextModel:
    """Opens a model and its adapter, if any, and reads its tokenizer.

    Raises:
      InputError: there is none, it is damaged, or it has a score head, so it writes no
        text.
    """
    opened = open_model(locate(name))
    if opened.config.score is not None:
        raise InputError(
            f"{name}: the model has a score head ({opened.config.score.labels} "
            "labels), so it writes no text; give a language model"
        )
    folder = locate(adapter) if adapter else None
    return TextModel(
        name=name,
        opened=opened.with_adapter(folder) if folder else opened,
        tokenizer=opened.tokenizer,
        adapter=folder,
    )
