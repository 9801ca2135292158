"""What is damaged, and a disk that takes no more, end in one sentence."""

import gc
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from stored_trees import DAMAGE, assert_same, flip_a_byte, run

from isara_jax.errors import InputError
from isara_jax.runtime.checkpoint import restore_tree, save_tree

DIGESTED = DAMAGE | {
    "a byte changed": flip_a_byte,
    "digests cut": lambda folder: (folder / "digests.json").write_text('{"d/'),
    "no digests": lambda folder: (folder / "digests.json").write_text("[]"),
}


@pytest.mark.parametrize("content", [None, {}, {"notes.txt": b"x"}])
def test_no_checkpoint(tmp_path, content):
    if content is not None:
        (tmp_path / "checkpoint").mkdir()
        for name, data in content.items():
            (tmp_path / "checkpoint" / name).write_bytes(data)
    with pytest.raises(InputError, match="checkpoint: no whole checkpoint there"):
        restore_tree(tmp_path / "checkpoint", {"a": jnp.zeros(1)})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DIGESTED)
def test_a_damaged_checkpoint_is_refused(tmp_path, damage):
    noise = {"a": jax.random.normal(jax.random.key(0), (5000,)), "b": jnp.ones(3)}
    path = tmp_path / "checkpoint"
    save_tree(path, noise)
    assert_same(restore_tree(path, noise), noise)
    DIGESTED[damage](path)
    with pytest.raises(
        InputError, match=r"checkpoint: (no whole|a damaged) checkpoint"
    ):
        restore_tree(path, noise)
    gc.collect()  # Orbax leaves coroutines that complain when they are collected


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
        "import pathlib, resource, sys, time, jax\n"
        "from isara_jax.errors import EnvironmentFailure\n"
        "from isara_jax.runtime.checkpoint import TreeWriter\n"
        "noise = jax.random.normal(jax.random.key(0), (50_000,))\n"
        "tree = {str(n): noise for n in range(20)}\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "path, writer = pathlib.Path(sys.argv[1]), TreeWriter()\n"
        "try:\n"
        "    writer.save(path, tree)\n"
        "    print('goes on')\n"
        "    time.sleep(0.5)\n"
        "    writer.save(path.with_name('next'), tree)\n"
        "except EnvironmentFailure as error:\n"
        "    print(error)\n",
        tmp_path / ("file/checkpoint" if fault == "no folder" else "checkpoint"),
    )
    assert "checkpoint: cannot be written (" in failed.stdout
    assert failed.stdout.startswith("goes on") == (fault == "no room")
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "checkpoint").exists()
