"""A model that writes text, as the commands that talk to one open it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isara_jax.errors import InputError
from isara_jax.generation import Sampler
from isara_jax.models import LanguageModel
from isara_jax.models.checkpoints import load_config, load_model
from isara_jax.prompts import Template
from isara_jax.runtime import Mesh, RuntimeConfig, Tokenizer, load_tokenizer, locate


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """What is known of a model before its weights are read."""

    name: str
    source: Path
    tokenizer: Tokenizer
    context: int
    adapter: Path | None = None

    def load(self, *, runtime: RuntimeConfig, mesh: Mesh) -> LanguageModel:
        """Reads the weights, and merges the adapter into them."""
        return load_model(
            self.source, dtype=runtime.dtype, mesh=mesh, adapter=self.adapter
        )

    def sampler(
        self,
        template: Template,
        *,
        runtime: RuntimeConfig,
        slots: int,
        mesh: Mesh,
        check: Callable[[], None],
    ) -> Sampler:
        """Returns the sampler of prompts that hold no demonstrations."""
        return Sampler(
            tokenizer=self.tokenizer,
            template=template,
            mesh=mesh,
            seed=runtime.seed,
            slots=slots,
            demo_tokens=0,
            context=self.context,
            check=check,
        )


def open_text_model(name: str, *, adapter: str = "") -> TextModel:
    """Finds a model and its adapter, if any; reads its tokenizer and its shape.

    Raises:
      InputError: there is none, it is damaged, or it has a score head, which writes
        nothing.
    """
    source = locate(name)
    config = load_config(source)
    if config.score is not None:
        raise InputError(
            f"{name}: the model has a score head ({config.score.labels} labels), so it "
            "writes no text; give a language model"
        )
    return TextModel(
        name=name,
        source=source,
        tokenizer=load_tokenizer(source),
        context=config.context,
        adapter=locate(adapter) if adapter else None,
    )
