"""The mesh and the one table that turns axis words into shardings (DESIGN 4).

Each parameter names its axes in words where it is created. `RULES` says which mesh axis
a word is split over: `data` carries the batch and the FSDP shards, `model` the tensor
parallel ones. An axis that the mesh does not divide evenly stays whole.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from isara_jax.errors import InputError

RULES: dict[str, str | None] = {
    "layers": None,
    "vocab": "model",
    "embed": "data",
    "heads": "model",
    "kv_heads": "model",
    "head_dim": None,
    "mlp": "model",
    "positions": None,
    "narrow": None,
    "rank": None,
    "labels": None,
    "norm": None,
    "batch": "data",
    "time": None,
    # The positions of a prompt that are run at once: they are all the work there is.
    "chunk": "data",
}

Tree = TypeVar("Tree")


def make_mesh(*, data: int, model: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Lays the devices out as data x model; `data=-1` takes what `model` leaves.

    Raises:
      InputError: the devices do not fill the mesh.
    """
    found = list(jax.devices() if devices is None else devices)
    if data == -1:
        data = max(1, len(found) // max(1, model))
    if data < 1 or model < 1 or data * model > len(found):
        raise InputError(
            f"--mesh_data={data} --mesh_model={model}: each must be at least 1 and "
            f"their product at most the number of devices, {len(found)}"
        )
    used = found[: data * model]
    axes, types = ("data", "model"), (AxisType.Auto, AxisType.Auto)
    slices = len({getattr(device, "slice_index", None) for device in used})
    if slices == 1:
        return jax.make_mesh((data, model), axes, axis_types=types, devices=used)
    if data % slices:
        raise InputError(
            f"--mesh_model={model}: {slices} slices of {len(used) // slices} devices "
            "each hold a whole part of the data axis, which it must leave them"
        )
    # Between slices lies a slow network: of the data axis, the outermost part.
    inside, across = (data // slices, model), (slices, 1)
    laid_out = create_hybrid_device_mesh(inside, across, devices=used)
    return Mesh(laid_out, axes, axis_types=types)


def platform_of(mesh: Mesh) -> str:
    """Returns what JAX calls the platform of the mesh's devices."""
    name: str = mesh.devices.flat[0].platform
    return name


def sharding_for(
    words: Sequence[str], shape: Sequence[int], mesh: Mesh
) -> NamedSharding:
    """Turns a parameter's axis words into its sharding on this mesh."""
    axes = []
    for word, size in zip(words, shape, strict=True):
        axis = RULES[word]
        whole = axis is None or size % mesh.shape[axis] != 0
        axes.append(None if whole else axis)
    return NamedSharding(mesh, PartitionSpec(*axes))


# The words of an array's axes, and its shape.
Described = tuple[Sequence[str], Sequence[int]]


def on_shards(
    function: Callable[..., Any],
    *,
    mesh: Mesh,
    inputs: Sequence[Described],
    outputs: Sequence[Described],
) -> Callable[..., tuple[Any, ...]]:
    """Makes a function of arrays run on each device's shards of them.

    That is for what the compiler cannot cut itself. The function returns a tuple.
    """

    def spec(described: Described) -> PartitionSpec:
        return sharding_for(*described, mesh).spec

    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(spec(described) for described in inputs),
        out_specs=tuple(spec(described) for described in outputs),
        check_vma=False,  # kernels do not say over which axes they vary
    )


def model_shardings(model: Tree, mesh: Mesh) -> Tree:
    """Returns the model with a sharding in the place of every array.

    What a parameter holds may be several arrays: all of them have its axes.
    """

    def of(variable: Any) -> Any:
        words = variable.get_metadata()["axes"]
        return variable.replace(
            jax.tree.map(
                lambda array: sharding_for(words, array.shape, mesh),
                variable.get_value(),
            )
        )

    return jax.tree.map(of, model, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


def abstract_on(model: Tree, mesh: Mesh) -> Tree:
    """Returns the model's shapes and dtypes with their shardings on this mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        model,
        model_shardings(model, mesh),
    )


def place_batch(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Puts a host array on the mesh, its first axis over `data` where it divides."""
    words = ("batch",) + ("time",) * (array.ndim - 1)
    return jax.device_put(array, sharding_for(words, array.shape, mesh))
