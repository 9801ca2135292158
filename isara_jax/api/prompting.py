"""How a loaded model's prompts are written: what the api's functions share."""

from typing import Literal

from isara_jax.api.loaded_model import LoadedModel
from isara_jax.engine import useful_slots
from isara_jax.generation import Sampler
from isara_jax.prompts import Template, make_template

TemplateName = Literal["paper", "paper_spaced", "chat"]


def template_of(model: LoadedModel, name: TemplateName) -> Template:
    """Returns the named template, of the model's own chat format where it is `chat`.

    Raises:
      InputError: `chat` with a tokenizer that has no usable chat format.
    """
    return make_template(name, render=model.tokenizer.render_chat)


def sampler_of(
    model: LoadedModel, template: Template, *, seed: int = 0, max_slots: int = 0
) -> Sampler:
    """Returns the sampler of prompts that hold no demonstrations."""
    return Sampler(
        tokenizer=model.tokenizer,
        template=template,
        mesh=model.mesh,
        seed=seed,
        slots=max_slots or useful_slots(),
        demo_tokens=0,
        context=model.config.context,
        check=lambda: None,
    )
