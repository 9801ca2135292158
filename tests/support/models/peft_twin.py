"""The oracle of adapters: peft on the models of transformers."""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import peft
import torch

from isara_jax.models.decoder import hidden_states
from isara_jax.models.lora.lora import fresh_adapters, target_weights
from isara_jax.runtime.mesh import make_mesh


def adapted_twin(twin, targets, *, rank=4, alpha=8.0):
    """Returns the model of torch with adapters of peft's, whose B is drawn too."""
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), task_type="CAUSAL_LM"
    )
    with warnings.catch_warnings():
        # Of what peft asks transformers for.
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.get_peft_model(twin, config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn_like(parameter))
    return model


def loaded(twin, folder):
    """Returns the model of torch with the adapters of a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return peft.PeftModel.from_pretrained(twin, folder).eval()


def saved(model, folder):
    """Writes what peft writes, and returns the folder."""
    model.save_pretrained(folder)
    return folder


def tensors_of(model):
    """Returns peft's A and B by the names that its files give them."""
    return {
        name.replace(".default", ""): value.detach().numpy()
        for name, value in model.named_parameters()
        if "lora_" in name
    }


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens))).logits.numpy()


def change_config(folder, **changes):
    """Rewrites attributes of the folder's adapter_config.json."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@jax.jit
def our_logits(model, tokens):
    """Returns [T, V] of one row."""
    hidden = hidden_states(
        model,
        tokens[None],
        segments=jnp.ones_like(tokens)[None],
        positions=jnp.arange(len(tokens))[None],
        remat="none",
    )
    return model.logits(hidden[0])


def drawn_adapters(model, *targets, rank=4, alpha=8.0, mesh=None):
    """Returns our own adapters on a model, with a B that does something."""
    fresh = fresh_adapters(
        model,
        target_weights(model, targets),
        rank=rank,
        alpha=alpha,
        key=jax.random.key(5),
        mesh=mesh or make_mesh(data=1, model=1),
    )
    return jax.tree.map(lambda array: array + 0.05, fresh)
