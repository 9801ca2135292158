"""Prompts and generation in the tiny run's words."""

from tiny_run import tiny_tokenizer

from isara_jax.generation import Generator, make_stop_criteria
from isara_jax.prompts.builder import PromptBuilder
from isara_jax.prompts.templates import make_template
from isara_jax.runtime.mesh import make_mesh

CONTEXT = 2048


def tiny_prompt_builder(tokenizer=None, *, template="paper", **changes):
    """Prompts have room for all that a test gives them, but for the changes."""
    tokenizer = tokenizer or tiny_tokenizer()
    return PromptBuilder(
        tokenizer=tokenizer,
        template=make_template(template, render=tokenizer.render_chat),
        **{"demo_tokens": 2000, "context": CONTEXT} | changes,
    )


def tiny_generator(tokenizer=None, *, template="paper", **changes):
    """Two slots of the same context, but for the changes."""
    tokenizer = tokenizer or tiny_tokenizer()
    template = make_template(template, render=tokenizer.render_chat)
    defaults = {"seed": 3, "slots": 2, "context": CONTEXT, "check": lambda: None}
    return Generator(
        mesh=make_mesh(data=1, model=1),
        stop_criteria=make_stop_criteria(tokenizer, template),
        **defaults | changes,
    )
