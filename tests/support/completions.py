"""Prompts of random tokens, and the engine's whole way from prompts to completions."""

import jax
import numpy as np

from isara_jax.engine.batches import Prompt, plan
from isara_jax.engine.beam import beam_batch
from isara_jax.engine.generate import Ending, generate_batch
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
):
    """Returns the completion of every prompt by its id."""
    mesh = mesh or one_device()
    continued = beam_batch if decoding.beams > 1 else generate_batch
    batches = plan(
        prompts,
        slots=slots,
        row_multiple=mesh.shape["data"],
        max_new_tokens=decoding.max_new_tokens,
        context=model.config.context,
    )
    return {
        completion.id: completion
        for batch in batches
        for completion in continued(
            model,
            batch,
            decoding=decoding,
            ending=Ending(eos=eos, stops=stops, decode=decode),
            key=jax.random.key(7),
            mesh=mesh,
            check=check,
        )
    }
