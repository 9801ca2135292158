"""A tree on the disk is whole and the same, or it is refused with a sentence."""

import gc
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from tiny_llama import tiny_llama

from isara_jax.errors import InputError
from isara_jax.runtime.checkpoint import (
    read_tensor,
    restore_tree,
    save_stream,
    save_tree,
    stored_tensors,
)
from isara_jax.runtime.mesh import abstract_on, make_mesh, model_shardings


def tree():
    return {
        "step": jnp.asarray(3, jnp.int32),
        "moments": [jnp.arange(6.0).reshape(2, 3), jnp.ones(4, jnp.bfloat16) / 3],
    }


def shapes(tree):
    return jax.tree.map(
        lambda array: jax.ShapeDtypeStruct(
            array.shape, array.dtype, sharding=array.sharding
        ),
        tree,
    )


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.fixture
def saved(tmp_path):
    save_tree(tmp_path / "checkpoint", tree())
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("of", ["shapes", "arrays"])
def test_a_tree_comes_back_to_the_bit(saved, of):
    target = {"shapes": shapes(tree()), "arrays": jax.tree.map(jnp.zeros_like, tree())}
    assert_same(restore_tree(saved, target[of]), tree())


@pytest.mark.parametrize(("data", "model_axis"), [(1, 1), (4, 2), (2, 4)])
def test_a_model_comes_back_onto_another_mesh(tmp_path, data, model_axis):
    model = tiny_llama(dtype=jnp.bfloat16)
    first = make_mesh(data=2, model=2)
    spread = jax.device_put(model, model_shardings(model, first))
    save_tree(tmp_path / "checkpoint", spread)
    target = abstract_on(model, make_mesh(data=data, model=model_axis))
    restored = restore_tree(tmp_path / "checkpoint", target)
    assert_same(restored, model)
    for array, wanted in zip(
        jax.tree.leaves(restored), jax.tree.leaves(target), strict=True
    ):
        assert array.sharding.is_equivalent_to(wanted.sharding, array.ndim)


def test_a_tree_comes_back_in_the_target_s_dtype(tmp_path):
    save_tree(tmp_path / "checkpoint", {"a": jnp.arange(5.0) / 3})
    target = {"a": jnp.zeros(5, jnp.bfloat16)}
    restored = restore_tree(tmp_path / "checkpoint", target)
    assert_same(restored, {"a": (jnp.arange(5.0) / 3).astype(jnp.bfloat16)})


def test_orbax_alone_reads_it_under_readable_names(tmp_path):
    model = tiny_llama()
    save_tree(tmp_path / "checkpoint", model)
    program = (
        "import json, sys, orbax.checkpoint as ocp\n"
        "with ocp.StandardCheckpointer() as checkpointer:\n"
        "    read = checkpointer.restore(sys.argv[1])\n"
        "norm = read['norm'].tolist()\n"
        "foreign = [name for name in sys.modules if name.startswith('isara_jax')]\n"
        "print(json.dumps([sorted(read), norm, foreign]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "checkpoint"],
        capture_output=True,
        text=True,
        check=True,
    )
    names, norm, foreign = json.loads(ran.stdout.splitlines()[-1])
    words = "attention_norm q k v o mlp_norm gate up down".split()
    assert names == sorted(["embedding", "norm", *(f"layers.{w}" for w in words)])
    assert norm == model.norm[...].tolist()
    assert foreign == []


def test_two_arrays_of_one_name_are_not_saved_as_one(tmp_path):
    confusing = {"a": {"b": jnp.ones(1)}, "a.b": jnp.zeros(1)}
    with pytest.raises(ValueError, match="two arrays of the tree have one name"):
        save_tree(tmp_path / "checkpoint", confusing)


def test_a_checkpoint_is_not_written_over(saved):
    with pytest.raises(FileExistsError, match="checkpoint: exists already"):
        save_tree(saved, {"a": jnp.ones(1)})
    assert_same(restore_tree(saved, tree()), tree())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"a": jnp.zeros(3)}, "another tree's checkpoint; it lacks 'a'"),
        (
            {"step": jnp.zeros((), int)},
            r"another tree's checkpoint; it holds a further array, 'moments\.0'",
        ),
        (
            tree() | {"more": jnp.zeros(1)},
            "another tree's checkpoint; it lacks 'more'",
        ),
        (
            tree() | {"step": jnp.zeros(2, int)},
            r"'step' has the shape \[\], expected \[2\]",
        ),
        (
            tree() | {"moments": [jnp.zeros((3, 2)), jnp.zeros(4)]},
            r"'moments\.0' has the shape \[2, 3\], expected \[3, 2\]",
        ),
    ],
)
def test_another_tree_is_refused(saved, target, message):
    with pytest.raises(InputError, match=f"checkpoint: {message}"):
        restore_tree(saved, target)


@pytest.mark.parametrize("content", [None, {}, {"notes.txt": b"x"}])
def test_no_checkpoint(tmp_path, content):
    if content is not None:
        (tmp_path / "checkpoint").mkdir()
        for name, data in content.items():
            (tmp_path / "checkpoint" / name).write_bytes(data)
    with pytest.raises(InputError, match="checkpoint: no whole checkpoint there"):
        restore_tree(tmp_path / "checkpoint", tree())


def largest(folder):
    return max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)


DAMAGE = {
    "metadata gone": lambda folder: (folder / "_METADATA").unlink(),
    "metadata cut": lambda folder: cut(folder / "_METADATA"),
    "metadata noise": lambda folder: (folder / "_METADATA").write_bytes(b"\xff" * 50),
    "manifest gone": lambda folder: (folder / "manifest.ocdbt").unlink(),
    "manifest cut": lambda folder: cut(folder / "manifest.ocdbt"),
    "data gone": lambda folder: largest(folder).unlink(),
    "data cut": lambda folder: cut(largest(folder)),
    "all data gone": lambda folder: [shutil.rmtree(d) for d in folder.glob("ocdbt.*")],
}


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    noise = {"a": jax.random.normal(jax.random.key(0), (5000,)), "b": jnp.ones(3)}
    path = tmp_path / "checkpoint"
    save_tree(path, noise)
    assert_same(restore_tree(path, noise), noise)
    DAMAGE[damage](path)
    with pytest.raises(
        InputError, match=r"checkpoint: (no whole|a damaged) checkpoint"
    ):
        restore_tree(path, noise)
    gc.collect()  # Orbax leaves coroutines that complain when they are collected


def run(program, path):
    return subprocess.run(
        [sys.executable, "-c", program, path],
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )


def test_what_an_interrupted_save_left_is_removed_and_never_read(tmp_path):
    path = tmp_path / "checkpoint"
    killed = run(
        "import os, pathlib, sys, jax.numpy as jnp\n"
        "from isara_jax.runtime.checkpoint import save_tree\n"
        "def die(*_, **__): os._exit(9)\n"
        "for name in ('rename', 'replace'):\n"
        "    setattr(os, name, die)\n"
        "    setattr(pathlib.Path, name, die)\n"
        "save_tree(pathlib.Path(sys.argv[1]), {'a': jnp.ones(3)})\n",
        path,
    )
    assert killed.returncode == 9
    left = list(tmp_path.iterdir())
    assert left and path not in left
    with pytest.raises(InputError, match="no whole checkpoint there"):
        restore_tree(path, {"a": jnp.zeros(3)})
    (tmp_path / f"{path.name}.orbax-checkpoint-tmp-1700000000").mkdir()
    save_tree(path, {"a": jnp.ones(3)})
    assert list(tmp_path.iterdir()) == [path]
    assert_same(restore_tree(path, {"a": jnp.zeros(3)}), {"a": jnp.ones(3)})


def test_reads_that_fail_after_the_first_one_are_not_heard_of(tmp_path, monkeypatch):
    path, heard = tmp_path / "checkpoint", []
    save_tree(path, {"a": jnp.ones(3)})
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    before = sys.unraisablehook
    restore_tree(path, {"a": jnp.zeros(3)})
    assert sys.unraisablehook is before
    with pytest.raises(InputError):
        restore_tree(path, {"b": jnp.zeros(3)})
    late = SimpleNamespace(exc_value=RuntimeError("Event loop is closed"))
    other = SimpleNamespace(exc_value=RuntimeError("another"))
    for unraisable in (late, other):
        sys.unraisablehook(unraisable)
    assert heard == [other]


@pytest.mark.parametrize("fault", ["no folder", "no room"])
def test_a_disk_that_does_not_take_it_ends_the_process_at_once(tmp_path, fault):
    if fault == "no folder":
        (tmp_path / "file").write_text("where a folder must be")
    failed = run(
        "import pathlib, resource, sys, jax\n"
        "from isara_jax.errors import EnvironmentFailure\n"
        "from isara_jax.runtime.checkpoint import save_tree\n"
        "noise = jax.random.normal(jax.random.key(0), (50_000,))\n"
        "tree = {str(n): noise for n in range(20)}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        "    save_tree(pathlib.Path(sys.argv[1]), tree)\n"
        "except EnvironmentFailure as error:\n"
        "    print(error)\n",
        tmp_path / ("file/checkpoint" if fault == "no folder" else "checkpoint"),
    )
    assert "checkpoint: cannot be written (" in failed.stdout
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "checkpoint").exists()


def test_a_neighbour_s_left_overs_stay(tmp_path):
    other = tmp_path / "checkpoint_2.orbax-checkpoint-tmp-1"
    other.mkdir()
    save_tree(tmp_path / "checkpoint", tree())
    assert other.exists()


# Streams


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
