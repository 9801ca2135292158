"""Adapters of low rank on a model's kernels (LoRA, Hu et al. 2021), as one value.

They are trained instead of the model, which stays as it is and may be quantised (QLoRA,
Dettmers et al. 2023). `adapted` joins the two into a model that runs and has gradients
by the adapters alone; `merge` makes a plain model of them.
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
from isara_jax.models.families import LanguageModel, family_of
from isara_jax.models.formats import TensorMap
from isara_jax.models.layers import LoraWeight, Quantisation, plain, quantised
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
WORDS = frozenset(("heads", "kv_heads", "mlp"))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LoraPair:
    """A is [L, r, *inputs], B [L, r, *outputs]; a layer adds scale * A B."""

    a: nnx.Variable
    b: nnx.Variable


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Adapters:
    """The adapters of the kernels that have one, by the kernels' names."""

    kernels: dict[str, LoraPair]
    scale: float = field(metadata={"static": True})

    @property
    def rank(self) -> int:
        """Returns r."""
        rank: int = next(iter(self.kernels.values())).b.get_value().shape[1]
        return rank

    @property
    def alpha(self) -> float:
        """Returns the scale times r, which is what files hold."""
        return self.scale * self.rank


def kernel_formats(config: Any) -> dict[str, TensorMap]:
    """Returns where each kernel of the layers lives in a file, by its name here."""
    return {
        tensor.path[-1]: tensor
        for tensor in family_of(config).tensor_maps(config)
        if tensor.is_kernel
    }


def targeted(model: LanguageModel, targets: Sequence[str]) -> tuple[str, ...]:
    """Returns the kernels that have the name, or an axis of it, in their order.

    Raises:
      InputError: a target is of no kernel, or none of the targets is.
    """
    words: dict[str, set[str]] = {
        name: {name, *_axes(model, name)[1:]} for name in kernel_formats(model.config)
    }
    known = sorted(WORDS.union(*words.values()))
    for target in targets:
        if target not in known:
            raise InputError(
                f"{target!r} is no kernel and no axis of one; expected of "
                + ", ".join(known)
            )
    found = tuple(name for name, own in words.items() if own & set(targets))
    if not found:
        raise InputError(f"no kernel has an axis {' or '.join(targets)}")
    return found


def fresh_adapters(
    model: LanguageModel,
    kernels: Sequence[str],
    *,
    rank: int,
    alpha: float,
    key: Key[Array, ""],
    mesh: Mesh,
) -> Adapters:
    """Returns adapters that add nothing yet: A as peft draws it, B of zeros.

    They are of the dtype of the model's embedding; the model may be abstract.
    """
    build = partial(_fresh, model, kernels, rank=rank, alpha=alpha)
    shardings = model_shardings(jax.eval_shape(build, key), mesh)
    fresh: Adapters = jax.jit(build, out_shardings=shardings)(key)
    return fresh


def abstract_adapters(
    model: LanguageModel, kernels: Sequence[str], *, rank: int, alpha: float
) -> Adapters:
    """Returns the shapes of adapters on the model, which may be abstract itself."""
    build = partial(_fresh, model, kernels, rank=rank, alpha=alpha)
    abstract: Adapters = jax.eval_shape(build, jax.random.key(0))
    return abstract


def _fresh(
    model: LanguageModel,
    kernels: Sequence[str],
    key: Key[Array, ""],
    *,
    rank: int,
    alpha: float,
) -> Adapters:
    dtype = model.embedding.get_value().dtype
    pairs = {}
    for number, (name, tensor) in enumerate(kernel_formats(model.config).items()):
        if name not in kernels:
            continue
        shape, axes = getattr(model.layers, name).get_value().shape, _axes(model, name)
        split = 1 + tensor.inputs(shape[1:])
        # Kaiming's bound for a slope of sqrt(5), which is what peft takes.
        bound = math.prod(shape[1:split]) ** -0.5
        size, drawn = (shape[0], rank, *shape[1:split]), jax.random.fold_in(key, number)
        a = jax.random.uniform(drawn, size, minval=-bound, maxval=bound)
        b = jnp.zeros((shape[0], rank, *shape[split:]), dtype)
        pairs[name] = LoraPair(
            a=nnx.Param(a.astype(dtype), axes=("layers", "rank", *axes[1:split])),
            b=nnx.Param(b, axes=("layers", "rank", *axes[split:])),
        )
    return Adapters(kernels=pairs, scale=alpha / rank)


def adapted(base: Model, adapters: Adapters) -> Model:
    """Returns the base with the adapters beside its kernels; nothing is copied."""
    return _with_kernels(base, lambda name, kernel: _beside(kernel, adapters, name))


def on_base(base: Any, trained: Any) -> Any:
    """Returns what runs: what is trained, or the base with it as its adapters."""
    return trained if base is None else adapted(base, trained)


def merge(base: LanguageModel, adapters: Adapters, *, mesh: Mesh) -> LanguageModel:
    """Returns a plain model, in the adapters' dtype, that computes what the two do.

    What has no adapter and is plain shares its arrays with the base.
    """
    dtype = dtype_of(adapters)

    def whole(name: str, kernel: nnx.Variable) -> nnx.Variable:
        stack = _beside(kernel, adapters, name).get_value()
        if isinstance(stack, jax.Array):
            return kernel
        shape, axes = kernel.get_value().shape, logical_axes(kernel)
        place = sharding_for(axes, shape, mesh)
        added = jax.jit(plain, static_argnums=1, out_shardings=place)
        return kernel.replace(added(stack, dtype))

    return _with_kernels(base, whole)


def quantised_model(
    model: LanguageModel, kind: Quantisation, *, mesh: Mesh
) -> LanguageModel:
    """Quantises the kernels of the layers; an abstract model stays abstract."""
    formats = kernel_formats(model.config)

    def of(name: str, kernel: nnx.Variable) -> nnx.Variable:
        if name not in formats:
            return kernel
        inputs = formats[name].inputs(kernel.get_value().shape[1:])
        return quantised(kernel, kind, inputs=inputs, mesh=mesh)

    return _with_kernels(model, of)


def _beside(kernel: nnx.Variable, adapters: Adapters, name: str) -> nnx.Variable:
    if name not in adapters.kernels:
        return kernel
    pair = adapters.kernels[name]
    return kernel.replace(
        LoraWeight(
            base=kernel.get_value(),
            a=pair.a.get_value(),
            b=pair.b.get_value(),
            scale=adapters.scale,
        )
    )


def _with_kernels(
    model: Model, change: Callable[[str, nnx.Variable], nnx.Variable]
) -> Model:
    """Returns the model with what `change` makes of its layers' parameters."""

    def of(path: tuple[str, ...], parameter: nnx.Variable) -> nnx.Variable:
        return change(path[-1], parameter) if path[0] == "layers" else parameter

    return map_named_parameters(of, model)


def _axes(model: LanguageModel, name: str) -> tuple[str, ...]:
    return logical_axes(getattr(model.layers, name))
