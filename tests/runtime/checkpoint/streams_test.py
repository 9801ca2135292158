"""A stream of tensors on the disk: read by name, whole or refused."""

import gc

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from stored_trees import DAMAGE, assert_same, run

from isara_jax.errors import InputError
from isara_jax.runtime.checkpoint import (
    read_tensor,
    restore_tree,
    save_stream,
    stored_tensors,
)

STREAM = {
    "model.layers.0.q_proj.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model.layers.10.q_proj.weight": np.ones((3, 2), ml_dtypes.bfloat16) / 3,
    "model.norm.weight": np.full(4, np.pi, np.float16),
    "model.norm": np.zeros(1, np.float32),
}


@pytest.fixture
def streamed(tmp_path):
    save_stream(tmp_path / "checkpoint", STREAM.items(), group_bytes=20)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("group_bytes", [1, 36, 10**9])
def test_a_stream_comes_back_tensor_by_tensor(tmp_path, group_bytes):
    path = tmp_path / "checkpoint"
    save_stream(path, STREAM.items(), group_bytes=group_bytes)
    assert list(tmp_path.iterdir()) == [path]
    assert set(stored_tensors(path)) == set(STREAM)
    for name, value in STREAM.items():
        stored, read = stored_tensors(path)[name], read_tensor(path, name)
        assert (stored.shape, stored.dtype) == (value.shape, value.dtype)
        assert isinstance(read, np.ndarray)
        assert (read.shape, read.dtype) == (value.shape, value.dtype)
        assert read.tobytes() == value.tobytes()


def test_a_stream_is_a_tree_too(streamed):
    target = jax.tree.map(jnp.zeros_like, STREAM)
    assert_same(restore_tree(streamed, target), jax.tree.map(jnp.asarray, STREAM))


def test_orbax_s_newer_interface_reads_a_stream(streamed):
    from orbax.checkpoint import v1

    read = v1.load(streamed)
    assert read.keys() == STREAM.keys()
    for name, value in STREAM.items():
        assert np.asarray(read[name]).tobytes() == value.tobytes()


def test_a_stream_is_not_written_over_a_checkpoint(streamed):
    with pytest.raises(FileExistsError, match="checkpoint: exists already"):
        save_stream(streamed, STREAM.items())


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path):
    def breaking():
        yield from STREAM.items()
        raise InputError("the source is damaged")

    with pytest.raises(InputError, match=r"^the source is damaged$"):
        save_stream(tmp_path / "checkpoint", breaking(), group_bytes=1)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_ends_a_stream_at_once(tmp_path):
    failed = run(
        "import pathlib, resource, sys, numpy\n"
        "from isara_jax.errors import EnvironmentFailure\n"
        "from isara_jax.runtime.checkpoint import save_stream\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "tensors = {str(n): numpy.random.random(9_000) for n in range(3)}\n"
        "try:\n"
        "    save_stream(pathlib.Path(sys.argv[1]), tensors.items(), group_bytes=1)\n"
        "except EnvironmentFailure as error:\n"
        "    print(error)\n",
        tmp_path / "checkpoint",
    )
    assert "checkpoint: cannot be written (" in failed.stdout, failed.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_stream_is_refused(tmp_path, damage):
    path = tmp_path / "checkpoint"
    noise = np.random.default_rng(0).random(5000)
    save_stream(path, [("a", noise), ("b", np.ones(3))])
    DAMAGE[damage](path)
    with pytest.raises(
        InputError, match=r"checkpoint: (no whole|a damaged) checkpoint"
    ):
        [read_tensor(path, name) for name in stored_tensors(path)]
    gc.collect()  # Orbax leaves coroutines that complain when they are collected


def test_a_nested_tree_is_no_stream(tmp_path):
    from orbax.checkpoint import v1

    v1.save(tmp_path / "nested", {"model": {"norm": np.ones(2)}})
    (tmp_path / "nested/state").rename(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="checkpoint: 'model' is no array of a flat"):
        stored_tensors(tmp_path / "checkpoint")
