"""One run a folder, and a folder that is a run's."""

import json
import subprocess
import sys

import pytest

from isara_jax.errors import InputError
from isara_jax.run.workdir import Workdir
from isara_jax.runtime.files.records import read_json, write_jsonl

FLAGS = {"rounds": 2, "learning_rate": 1e-5, "template": "chat"}
PROVENANCE = {
    "hashes": {"seeds": "aa", "model": "bb"},
    "versions": {},
    "created": "now",
}


@pytest.fixture
def workdir(tmp_path):
    return Workdir(tmp_path / "runs" / "one")


def test_the_places_of_a_run(workdir):
    root = workdir.path
    assert workdir.round(1).questions.path == root / "round_01" / "questions.jsonl"
    assert workdir.round(12).kept == root / "round_12" / "kept.jsonl"
    assert workdir.baseline("sft").evaluation == root / "baselines/sft/evaluation.json"


def begin(workdir, flags=FLAGS, provenance=PROVENANCE):
    with workdir.locked():
        workdir.open(flags, provenance)


def work(workdir):
    workdir.round(1).questions.append([{"id": "r01-0000"}])


def test_the_same_run_goes_on(workdir):
    begin(workdir)
    work(workdir)
    begin(workdir, provenance=PROVENANCE | {"created": "later"})
    assert read_json(workdir.manifest) == {"flags": FLAGS, **PROVENANCE}


@pytest.mark.parametrize(
    ("flags", "hashes", "named"),
    [
        ({"rounds": 3}, {}, "the flag rounds=2, this one has 3"),
        ({"template": "paper"}, {}, "template='chat', this one has 'paper'"),
        ({"new": 1}, {}, "the flag new=None, this one has 1"),
        ({}, {"seeds": "cc"}, "the hash seeds='aa', this one has 'cc'"),
        ({}, {"heldout": "dd"}, "the hash heldout=None, this one has 'dd'"),
    ],
)
def test_another_run_is_refused_by_what_differs(workdir, flags, hashes, named):
    begin(workdir)
    work(workdir)
    before = workdir.manifest.read_bytes()
    with pytest.raises(InputError) as caught:
        begin(
            workdir,
            FLAGS | flags,
            PROVENANCE | {"hashes": PROVENANCE["hashes"] | hashes},
        )
    assert str(caught.value).startswith(f"workdir={workdir.path}: ")
    assert named in str(caught.value)
    assert workdir.manifest.read_bytes() == before


def test_a_run_that_has_made_nothing_may_be_another_one(workdir):
    begin(workdir)
    write_jsonl(workdir.seeds, [{"id": "seed-0000"}])
    begin(workdir, FLAGS | {"rounds": 3})
    assert read_json(workdir.manifest)["flags"]["rounds"] == 3


def test_a_kill_while_the_manifest_is_written_leaves_a_new_run(workdir):
    with workdir.locked():
        (workdir.path / ".manifest.json.partial").write_text("{")
        workdir.open(FLAGS, PROVENANCE)
    assert read_json(workdir.manifest)["flags"] == FLAGS


def test_a_folder_of_other_files_is_no_run(workdir):
    workdir.path.mkdir(parents=True)
    (workdir.path / "thesis.tex").write_text("\\begin{document}")
    with pytest.raises(InputError, match=r"holds files but no manifest\.json"):
        begin(workdir)
    assert not workdir.manifest.exists()


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_workdir(tmp_path, inside):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file or lies in one, must be a folder"):
        begin(Workdir(tmp_path / "file" / inside))


def test_a_second_process_is_kept_out(workdir):
    code = (
        "import sys, pathlib\n"
        "from isara_jax.run.workdir import Workdir\n"
        "with Workdir(pathlib.Path(sys.argv[1])).locked():\n"
        "    print('in', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, str(workdir.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(InputError, match="another process is at work there"):
            begin(workdir)
        other.communicate("\n")
    begin(workdir)
    assert json.loads(workdir.manifest.read_text())["flags"] == FLAGS
