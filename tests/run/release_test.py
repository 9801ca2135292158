"""model/ and dataset/: what their cards say, and that each is whole or absent."""

import hashlib

import datasets
import pytest
import yaml
from handoff import restored
from pyarrow import parquet
from safetensors import SafetensorError
from tiny_llama import tiny_llama
from tiny_run import tiny_tokenizer

from isara_jax.errors import EnvironmentFailure
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.formats import safetensors as shards
from isara_jax.run import release as module
from isara_jax.run.release import finished_rounds, release_dataset, release_model
from isara_jax.run.workdir import Workdir
from isara_jax.runtime.files.records import write_json, write_jsonl
from isara_jax.runtime.mesh import make_mesh

BASE = 'hub/"odd": name'
HOSTILE = "<script>alert(1)</script> \u2028 | `x`\n--- é"


def pair(id, **changes):
    return {
        "id": id,
        "question": f"Why is {id} there?",
        "answer": HOSTILE,
        "question_demos": ["seed-0000", "seed-0001"],
        "answer_demos": [],
        "nearest_seed": "seed-0000",
        "nearest_seed_similarity": 0.5,
        "parent": "M_0",
        **changes,
    }


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path / "my run")
    flags = {"seeds": "seeds.jsonl", "template": "chat", "seed": 42}
    write_json(workdir.manifest, {"flags": flags})
    for number, kept in ((1, ["r01-0000", "r01-0002"]), (2, ["r02-0001"])):
        folder = workdir.round(number)
        write_jsonl(folder.kept, [pair(id) for id in kept])
        outcome = {"round": number, "generated": 4, "kept": len(kept)}
        write_json(folder.summary, outcome)
    return workdir


def evaluated(folder, model, value):
    metric = {"value": value, "low": value - 1, "high": value + 1}
    write_json(folder.evaluation, {"model": model, "metrics": {"nll": metric}})


def front_matter(card):
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def released_dataset(workdir):
    release_dataset(workdir, rounds=finished_rounds(workdir), base=BASE)


def released_model(workdir, license="apache-2.0"):
    release_model(workdir, tiny_llama(), tiny_tokenizer(), base=BASE, license=license)


def test_a_round_is_finished_when_its_summary_is_there(workdir):
    assert finished_rounds(workdir) == 2
    write_jsonl(workdir.round(3).kept, [])
    assert finished_rounds(workdir) == 2
    assert finished_rounds(Workdir(workdir.path / "none")) == 0


def test_the_dataset_has_every_kept_pair_with_its_origin(workdir, tmp_path):
    released_dataset(workdir)
    file = str(workdir.dataset / "data" / "train.parquet")
    rows = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))
    assert rows.to_list() == [
        {"round": 1, **pair("r01-0000")},
        {"round": 1, **pair("r01-0002")},
        {"round": 2, **pair("r02-0001")},
    ]


def test_a_run_that_kept_nothing_has_an_empty_dataset(workdir):
    for number in (1, 2):
        write_jsonl(workdir.round(number).kept, [])
    released_dataset(workdir)
    # Not by `datasets`, which refuses to load a file without rows.
    table = parquet.read_table(workdir.dataset / "data" / "train.parquet")
    assert table.num_rows == 0 and "question_demos" in table.column_names


def test_the_dataset_s_card(workdir):
    released_dataset(workdir)
    head, body = front_matter((workdir.dataset / "README.md").read_text("utf-8"))
    assert head["configs"][0]["data_files"] == "data/train.parquet"
    assert "# my run: pairs" in body
    assert f"3 question-answer pairs that `{BASE}`" in body


def test_the_model_s_card(workdir):
    evaluated(workdir.baseline("pretrained"), "pretrained", 3.25)
    evaluated(workdir.round(1), "ISARA round 1", 2.5)
    released_model(workdir)
    head, body = front_matter((workdir.model / "README.md").read_text("utf-8"))
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "transformers"
    assert "# my run: aligned by ISARA" in body
    assert f"- **Base**: `{BASE}`, licence `apache-2.0`" in body
    assert "3 pairs kept of 8 that" in body and "over 2 rounds" in body
    assert "the template `chat`" in body and "with the seed\n42." in body
    table = [line for line in body.splitlines() if line.startswith("|")]
    assert table == [
        "| model | nll |",
        "|---|---|",
        "| pretrained | 3.25 (2.25 to 4.25) |",
        "| ISARA round 1 | 2.5 (1.5 to 3.5) |",
    ]


def test_the_model_s_card_claims_no_licence_and_no_figures_of_its_own(workdir):
    released_model(workdir, license="")
    head, body = front_matter((workdir.model / "README.md").read_text("utf-8"))
    assert head["license"] == "other" and "licence not stated in its files" in body
    assert "None: the run had no held-out set." in body


def test_both_folders_are_complete_and_nothing_is_left_beside_them(workdir):
    for name in (".model.partial", ".dataset.partial"):
        (workdir.path / name / "stale").mkdir(parents=True)
    released_dataset(workdir)
    released_model(workdir)
    assert {path.name for path in workdir.model.iterdir()} >= {
        *("model.safetensors", "config.json", "generation_config.json"),
        *("tokenizer.json", "README.md", "orbax"),
    }
    assert {path.name for path in workdir.dataset.iterdir()} == {"data", "README.md"}
    assert not list(workdir.path.glob(".*"))


def test_a_dataset_that_is_there_is_left_alone(workdir):
    workdir.dataset.mkdir()
    released_dataset(workdir)
    assert list(workdir.dataset.iterdir()) == []


def test_a_stop_in_the_middle_leaves_no_folder(workdir, monkeypatch):
    monkeypatch.setattr(module, "dataset_card", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        released_dataset(workdir)
    assert not workdir.dataset.exists()


def test_orbax_alone_reads_the_same_tensors(workdir):
    released_model(workdir)
    expected = {
        name: [str(t.dtype), list(t.shape), hashlib.sha256(t.tobytes()).hexdigest()]
        for name, t in named_tensors(tiny_llama())
    }
    assert restored(workdir.model) == expected


def test_the_orbax_part_is_a_model_where_the_safetensors_are_gone(workdir):
    released_model(workdir)
    (workdir.model / "model.safetensors").unlink()
    read = load_model(
        open_model(workdir.model), dtype="float32", mesh=make_mesh(data=1, model=1)
    )
    for (name, value), (_, expected) in zip(
        named_tensors(read), named_tensors(tiny_llama()), strict=True
    ):
        assert value.tobytes() == expected.tobytes(), name


def test_a_disk_too_full_for_the_weights(workdir, monkeypatch):
    def full(*arguments, **_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_file", full)
        with pytest.raises(EnvironmentFailure, match=r"cannot be written \(I/O"):
            released_model(workdir)
    assert not workdir.model.exists()
    released_model(workdir)
    assert workdir.model.exists()
