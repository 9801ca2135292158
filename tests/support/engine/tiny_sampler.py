"""A sampler of the tiny run's words."""

from tiny_run import tiny_tokenizer

from isara_jax.generation import Sampler
from isara_jax.prompts import make_template
from isara_jax.runtime.mesh import make_mesh


def tiny_sampler(tokenizer=None, *, template="paper", **changes):
    """Prompts have room for all that a test gives them, but for the changes."""
    tokenizer = tokenizer or tiny_tokenizer()
    roomy = {"seed": 3, "slots": 2, "demo_tokens": 2000, "context": 2048}
    return Sampler(
        tokenizer=tokenizer,
        template=make_template(template, render=tokenizer.render_chat),
        mesh=make_mesh(data=1, model=1),
        **{"check": lambda: None} | roomy | changes,
    )
