"""Low-rank adapters on a model's linear weights (LoRA, Hu et al. 2021), as one value.

They are trained instead of the model, which stays as it is and may be quantized (QLoRA,
Dettmers et al. 2023). `with_lora` joins the two into a model that runs and has
gradients by the adapters alone; `merge` adds the adapters to the weights.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from isara_jax.errors import InputError
from isara_jax.models.decoder import Decoder
from isara_jax.models.layers import (
    LoraWeight,
    Quantization,
    input_axes,
    is_linear,
    quantize_weight,
    to_dense,
)
from isara_jax.runtime import (
    Mesh,
    dtype_of,
    logical_axes,
    map_named_parameters,
    model_shardings,
    sharding_for,
)

Model = TypeVar("Model")

# Axes that may be named of any family: one without grouped heads has no `kv_heads`.
AXES = frozenset(("heads", "kv_heads", "mlp"))
# The order of a pass, in which adapters are drawn and listed; other names follow.
ORDER = ("q", "k", "v", "o", "gate", "up", "down")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """A is [L, r, *inputs], B [L, r, *outputs]; a layer adds scale * A B."""

    a: nnx.Variable
    b: nnx.Variable


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The adapters of a model, by the names of the weights that have one."""

    weights: dict[str, LoraPair]
    scale: float = field(metadata={"static": True})

    @property
    def rank(self) -> int:
        """Returns r."""
        rank: int = next(iter(self.weights.values())).b.get_value().shape[1]
        return rank

    @property
    def alpha(self) -> float:
        """Returns the scale times r, which is what files hold."""
        return self.scale * self.rank


def linear_weights(model: Decoder) -> dict[str, nnx.Variable]:
    """Returns the linear weights of the layers by their names, in the order of a pass.

    The model may be abstract.
    """
    found = {
        name: parameter
        for name, parameter in vars(model.layers).items()
        if isinstance(parameter, nnx.Variable) and is_linear(parameter)
    }
    others = sorted(found.keys() - set(ORDER))
    return {name: found[name] for name in (*ORDER, *others) if name in found}


def target_weights(model: Decoder, targets: Sequence[str]) -> tuple[str, ...]:
    """Returns the linear weights that have one of the names, or an axis of that name.

    Raises:
      InputError: a target is of no weight, or none of the targets is.
    """
    names: dict[str, set[str]] = {
        name: {name, *logical_axes(weight)[1:]}
        for name, weight in linear_weights(model).items()
    }
    known = sorted(AXES.union(*names.values()))
    for target in targets:
        if target not in known:
            raise InputError(
                f"{target!r} is no linear weight and no axis of one; expected of "
                + ", ".join(known)
            )
    found = tuple(name for name, own in names.items() if own & set(targets))
    if not found:
        raise InputError(f"no linear weight has an axis {' or '.join(targets)}")
    return found


def fresh_adapters(
    model: Decoder,
    names: Sequence[str],
    *,
    rank: int,
    alpha: float,
    key: Key[Array, ""],
    mesh: Mesh,
) -> Adapters:
    """Returns adapters that add nothing yet: A as peft draws it, B of zeros.

    They are of the dtype of the model's embedding; the model may be abstract.
    """
    build = partial(_fresh, model, names, rank=rank, alpha=alpha)
    shardings = model_shardings(jax.eval_shape(build, key), mesh)
    fresh: Adapters = jax.jit(build, out_shardings=shardings)(key)
    return fresh


def abstract_adapters(
    model: Decoder, names: Sequence[str], *, rank: int, alpha: float
) -> Adapters:
    """Returns the shapes of adapters on the model, which may be abstract itself."""
    build = partial(_fresh, model, names, rank=rank, alpha=alpha)
    abstract: Adapters = jax.eval_shape(build, jax.random.key(0))
    return abstract


def _fresh(
    model: Decoder,
    names: Sequence[str],
    key: Key[Array, ""],
    *,
    rank: int,
    alpha: float,
) -> Adapters:
    dtype = model.embedding.get_value().dtype
    pairs = {}
    for number, (name, weight) in enumerate(linear_weights(model).items()):
        if name not in names:
            continue
        shape, axes = weight.get_value().shape, logical_axes(weight)
        split = 1 + input_axes(weight)
        # Kaiming's bound for a slope of sqrt(5), which is what peft takes.
        bound = math.prod(shape[1:split]) ** -0.5
        size, drawn = (shape[0], rank, *shape[1:split]), jax.random.fold_in(key, number)
        a = jax.random.uniform(drawn, size, minval=-bound, maxval=bound)
        b = jnp.zeros((shape[0], rank, *shape[split:]), dtype)
        pairs[name] = LoraPair(
            a=nnx.Param(a.astype(dtype), axes=("layers", "rank", *axes[1:split])),
            b=nnx.Param(b, axes=("layers", "rank", *axes[split:])),
        )
    return Adapters(weights=pairs, scale=alpha / rank)


def with_lora(base: Model, adapters: Adapters) -> Model:
    """Returns the base with the adapters beside its weights; nothing is copied."""
    return _map_layers(base, lambda name, weight: _lora_weight(weight, adapters, name))


def on_base(base: Any, trained: Any) -> Any:
    """Returns what runs: what is trained, or the base with it as its adapters."""
    return trained if base is None else with_lora(base, trained)


def merge(base: Decoder, adapters: Adapters, *, mesh: Mesh) -> Decoder:
    """Returns a dense model, in the adapters' dtype, that computes what the two do.

    A parameter that is dense and has no adapter shares its array with the base.
    """
    dtype = dtype_of(adapters)

    def merged(name: str, weight: nnx.Variable) -> nnx.Variable:
        stack = _lora_weight(weight, adapters, name).get_value()
        if isinstance(stack, jax.Array):
            return weight
        sharding = sharding_for(logical_axes(weight), weight.get_value().shape, mesh)
        dense = jax.jit(to_dense, static_argnums=1, out_shardings=sharding)
        return weight.replace(dense(stack, dtype))

    return _map_layers(base, merged)


def quantize_model(model: Decoder, kind: Quantization, *, mesh: Mesh) -> Decoder:
    """Quantizes the linear weights of the layers; an abstract model stays abstract."""

    def quantized(_: str, parameter: nnx.Variable) -> nnx.Variable:
        if not is_linear(parameter):
            return parameter
        return quantize_weight(parameter, kind, mesh=mesh)

    return _map_layers(model, quantized)


def _lora_weight(weight: nnx.Variable, adapters: Adapters, name: str) -> nnx.Variable:
    if name not in adapters.weights:
        return weight
    pair = adapters.weights[name]
    return weight.replace(
        LoraWeight(
            base=weight.get_value(),
            a=pair.a.get_value(),
            b=pair.b.get_value(),
            scale=adapters.scale,
        )
    )


def _map_layers(
    model: Model, change: Callable[[str, nnx.Variable], nnx.Variable]
) -> Model:
    """Returns the model with what `change` makes of its layers' parameters."""

    def of(path: tuple[str, ...], parameter: nnx.Variable) -> nnx.Variable:
        return change(path[-1], parameter) if path[0] == "layers" else parameter

    return map_named_parameters(of, model)
