"""Prompts of random tokens, and the engine's whole way from prompts to completions."""

import jax
import numpy as np

from isara_jax.engine.batches import Prompt
from isara_jax.engine.endings import Ending
from isara_jax.engine.stream import Engine
from isara_jax.runtime.mesh import make_mesh, model_shardings


def random_prompts(*lengths, vocabulary=97):
    """The tokens of a prompt depend on its place and length only."""
    return [
        Prompt(
            id=f"r01-{number:04d}",
            number=number,
            tokens=tuple(
                np.random.default_rng((number, length))
                .integers(0, vocabulary, length)
                .tolist()
            ),
        )
        for number, length in enumerate(lengths)
    ]


def letters(ids):
    """A text of one letter a token."""
    return "".join(chr(0x4E00 + id) for id in ids)


def one_device():
    return make_mesh(data=1, model=1)


def place(model, mesh):
    return jax.device_put(model, model_shardings(model, mesh))


def complete(
    model,
    prompts,
    *,
    decoding,
    slots=8,
    eos=(),
    stops=(),
    decode=letters,
    mesh=None,
    check=lambda: None,
    done=(),
    figures=None,
):
    """Returns every prompt's completion by its id; of beams all have one slot."""
    engine = Engine(
        model=model,
        mesh=mesh or one_device(),
        slots=slots * decoding.beams,
        context=model.config.context,
        check=check,
    )
    return {
        completion.id: completion
        for completions in engine.continue_all(
            prompts,
            decoding=decoding,
            ending=Ending(eos=eos, stops=stops, decode=decode),
            key=jax.random.key(7),
            done=done,
            figures=figures,
        )
        for completion in completions
    }
