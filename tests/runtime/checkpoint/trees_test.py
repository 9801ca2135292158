"""A tree on the disk is whole and the same, or another one is refused."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from stored_trees import assert_same, run
from tiny_llama import tiny_llama

from isara_jax.errors import InputError
from isara_jax.runtime.checkpoint import restore_tree, save_tree
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


def test_a_neighbour_s_left_overs_stay(tmp_path):
    other = tmp_path / "checkpoint_2.orbax-checkpoint-tmp-1"
    other.mkdir()
    save_tree(tmp_path / "checkpoint", tree())
    assert other.exists()
