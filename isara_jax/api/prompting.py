"""How a loaded model's prompts are written and continued, for the api's functions."""

from isara_jax.api.loaded_model import LoadedModel
from isara_jax.engine import EngineConfig
from isara_jax.generation import Generator, make_stop_criteria
from isara_jax.prompts import PromptBuilder, Template, TemplateName, make_template


def template_of(model: LoadedModel, name: TemplateName) -> Template:
    """Returns the named template, of the model's own chat format where it is `chat`.

    Raises:
      InputError: `chat` with a tokenizer that has no usable chat format.
    """
    return make_template(name, render=model.tokenizer.render_chat)


def prompt_builder_of(model: LoadedModel, template: Template) -> PromptBuilder:
    """Returns the builder of prompts that hold no demonstrations."""
    return PromptBuilder(
        tokenizer=model.tokenizer, template=template, context=model.config.context
    )


def generator_of(
    model: LoadedModel, template: Template, *, seed: int = 0, max_slots: int = 0
) -> Generator:
    """Returns what generates; a template's stop strings end a continuation."""
    return Generator(
        mesh=model.mesh,
        seed=seed,
        slots=EngineConfig(max_slots=max_slots).slots,
        context=model.config.context,
        stop_criteria=make_stop_criteria(model.tokenizer, template),
        check=lambda: None,
    )
