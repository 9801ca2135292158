"""The device mesh, and the one table that turns logical axes into shardings.

Each parameter names its logical axes where it is created. `LOGICAL_AXIS_RULES` maps
them to axes of the mesh: `data` splits the batch and the parameters (FSDP), `model`
splits heads and feed-forwards (tensor parallelism). An axis whose size the mesh does
not divide is replicated.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental.mesh_utils import create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from isara_jax.errors import FieldError
from isara_jax.runtime.parameters import logical_axes, map_parameters

LOGICAL_AXIS_RULES: dict[str, str | None] = {
    "layers": None,
    "vocab": "model",
    "embed": "data",
    "heads": "model",
    "kv_heads": "model",
    "head_dim": None,
    "mlp": "model",
    "positions": None,
    "word_embed": None,
    "rank": None,
    "labels": None,
    "norm": None,
    "batch": "data",
    "time": None,
    # Positions of one prompt's prefill chunk: there are no other rows to split.
    "chunk": "data",
}

Tree = TypeVar("Tree")


def make_mesh(*, data: int, model: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of `data` x `model` devices.

    Args:
      data: size of the `data` axis; -1 takes the devices that `model` leaves.
      model: size of the `model` axis.
      devices: all of JAX's devices, if None.

    Raises:
      FieldError: there are too few devices, or slices that the mesh would divide.
    """
    found = list(jax.devices() if devices is None else devices)
    if data == -1:
        data = max(1, len(found) // max(1, model))
    if data < 1 or model < 1 or data * model > len(found):
        raise FieldError(
            "mesh_data",
            data,
            f"must be at least 1, as must `mesh_model`={model}, and their product at "
            f"most the number of devices, {len(found)}",
        )
    used = found[: data * model]
    axes, types = ("data", "model"), (AxisType.Auto, AxisType.Auto)
    slices = len({getattr(device, "slice_index", None) for device in used})
    if slices == 1:
        return jax.make_mesh((data, model), axes, axis_types=types, devices=used)
    if data % slices:
        raise FieldError(
            "mesh_model",
            model,
            f"{slices} slices of {len(used) // slices} devices each hold a whole part "
            "of the data axis, which it must leave them",
        )
    # The slow network between slices carries the outermost part of the data axis only.
    within, between = (data // slices, model), (slices, 1)
    arranged = create_hybrid_device_mesh(within, between, devices=used)
    return Mesh(arranged, axes, axis_types=types)


def platform_of(mesh: Mesh) -> str:
    """Returns JAX's name of the platform of the mesh's devices: cpu, gpu, tpu."""
    name: str = mesh.devices.flat[0].platform
    return name


def sharding_for(
    axes: Sequence[str], shape: Sequence[int], mesh: Mesh
) -> NamedSharding:
    """Returns the sharding of an array with these logical axes.

    Raises:
      KeyError: an axis is not in `LOGICAL_AXIS_RULES`.
      ValueError: there are not as many axes as the shape has.
    """
    mesh_axes = []
    for axis, size in zip(axes, shape, strict=True):
        mesh_axis = LOGICAL_AXIS_RULES[axis]
        divides = mesh_axis is not None and size % mesh.shape[mesh_axis] == 0
        mesh_axes.append(mesh_axis if divides else None)
    return NamedSharding(mesh, PartitionSpec(*mesh_axes))


def constrain(array: jax.Array, axes: Sequence[str], mesh: Mesh) -> jax.Array:
    """Constrains an array inside `jax.jit` to the sharding of its logical axes."""
    sharding = sharding_for(axes, array.shape, mesh)
    return jax.lax.with_sharding_constraint(array, sharding)


# An array's logical axes and its shape.
LogicalArray = tuple[Sequence[str], Sequence[int]]


def logical_shard_map(
    function: Callable[..., Any],
    *,
    mesh: Mesh,
    inputs: Sequence[LogicalArray],
    outputs: Sequence[LogicalArray],
) -> Callable[..., tuple[Any, ...]]:
    """Wraps `jax.shard_map`, with logical axes in the place of partition specs.

    It is for kernels, which the compiler cannot partition. The function returns a
    tuple.
    """

    def spec(array: LogicalArray) -> PartitionSpec:
        return sharding_for(*array, mesh).spec

    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=tuple(spec(array) for array in inputs),
        out_specs=tuple(spec(array) for array in outputs),
        check_vma=False,  # kernels do not say over which axes they vary
    )


def model_shardings(model: Tree, mesh: Mesh) -> Tree:
    """Returns the model with a sharding in the place of every array.

    A quantised parameter holds several arrays, all of them with its logical axes.
    """

    def shardings(parameter: Any) -> Any:
        axes = logical_axes(parameter)
        return parameter.replace(
            jax.tree.map(
                lambda array: sharding_for(axes, array.shape, mesh),
                parameter.get_value(),
            )
        )

    return map_parameters(shardings, model)


def abstract_on(model: Tree, mesh: Mesh) -> Tree:
    """Returns the abstract model: shapes and dtypes, with shardings on this mesh."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        model,
        model_shardings(model, mesh),
    )


def batch_sharding(shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Splits the first axis over `data` if it divides; the others stay whole."""
    axes = ("batch",) + ("time",) * (len(shape) - 1)
    return sharding_for(axes, shape, mesh)


def shard_batch(array: np.ndarray, mesh: Mesh) -> jax.Array:
    """Puts a host's batch on the mesh, with `batch_sharding`."""
    return jax.device_put(array, batch_sharding(array.shape, mesh))
