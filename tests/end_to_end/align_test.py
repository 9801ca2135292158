"""The tiny run through the real entry point, and all that it hands over."""

import hashlib
import json
import re
from fnmatch import fnmatch

import datasets
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from llama_files import reference_logits
from tiny_run import processor_seconds
from whole_rows import logits_of

from isara_jax.models.checkpoints.load import (
    abstract_model,
    load_model,
    named_tensors,
)
from isara_jax.models.checkpoints.open import open_model
from isara_jax.runtime.checkpoint import restore_tree
from isara_jax.runtime.files.records import Records, read_json
from isara_jax.runtime.mesh import abstract_on, make_mesh

pytestmark = pytest.mark.slow

IN_A_ROUND = (
    *("questions.jsonl", "answers.jsonl", "kept.jsonl", "rejected.jsonl"),
    *("checkpoint/**", "metrics.jsonl", "heldout_answers.jsonl", "evaluation.json"),
    "round.json",
)
IN_THE_FOLDER = (
    *("manifest.json", "seeds.jsonl", "stages.jsonl", "report.html", ".lock"),
    *("engine.jsonl",),
    *("baselines/pretrained/evaluation.json",),
    *("baselines/pretrained/heldout_answers.jsonl",),
    *("baselines/sft/evaluation.json", "baselines/sft/heldout_answers.jsonl"),
    *("baselines/sft/checkpoint/**", "baselines/sft/metrics.jsonl"),
    *(f"round_{t:02d}/{name}" for t in (1, 2) for name in IN_A_ROUND),
    *("model/model.safetensors", "model/config.json", "model/generation_config.json"),
    *("model/tokenizer.json", "model/tokenizer_config.json", "model/README.md"),
    *("model/chat_template.jinja", "model/orbax/**"),
    *("dataset/README.md", "dataset/data/train.parquet"),
    *("tensorboard/isara/events*", "tensorboard/sft/events*"),
    *("tensorboard/round_01/events*", "tensorboard/round_02/events*"),
)


@pytest.fixture
def workdir(finished):
    return finished.run.workdir


def kept(workdir):
    return [
        {"round": t, **record}
        for t in (1, 2)
        for record in Records(workdir / f"round_{t:02d}" / "kept.jsonl").read()
    ]


def test_the_folder_holds_what_it_is_to_and_nothing_else(workdir):
    files = {
        path.relative_to(workdir).as_posix()
        for path in workdir.rglob("*")
        if path.is_file()
    }
    unknown = [f for f in files if not any(fnmatch(f, p) for p in IN_THE_FOLDER)]
    missing = [p for p in IN_THE_FOLDER if not any(fnmatch(f, p) for f in files)]
    assert (unknown, missing) == ([], [])


def test_the_user_sees_every_stage_the_table_and_the_places(finished, workdir):
    lines = finished.process.stderr.splitlines()
    assert lines[0] == "pretrained: held-out answers: 0 of 6 samples"
    assert "round 2: answers: 0 of 8 samples" in lines
    assert lines[-1].startswith("round 2: kept ")
    # On a slow machine a stage has lines on its way, with the time left.
    rate = r"( in [\d:]+, [\d.]+ a second|, [\d.]+ a second, [\d:?]+ left)?"
    shape = r".+: \d+ of \d+ (samples|items|steps)" + rate
    stages = [line for line in lines if not re.match(r"round \d: kept", line)]
    assert [line for line in stages if not re.fullmatch(shape, line)] == []
    table = finished.process.stdout.splitlines()
    for name in ("pretrained", "SFT on the seeds", "ISARA round 1", "ISARA round 2"):
        assert sum(line.startswith(f"{name}  ") for line in table) == 1
    assert table[-3:] == [
        str(workdir / name) for name in ("report.html", "model", "dataset")
    ]


def test_the_engine_tells_what_it_did_in_every_stage(workdir):
    lines = Records(workdir / "engine.jsonl").read()
    stages = [line["stage"] for line in lines]
    assert "round 2: answers" in stages and len(set(stages)) == len(stages) == 8
    for line in lines:
        assert line["new_tokens"] > 0 and 0 < line["slot_occupancy"] <= 1
        assert line["decode_tokens_per_second"] > 0
        assert line["prefill_tokens_per_second"] > 0
        assert 0 < line["decode_share_of_bound"] < 1
        assert 0 < line["prefill_share_of_bound"] < 1
    # Programs of the first round run in the second.
    assert lines[-1]["compilations"] == 0


def test_some_pairs_are_kept_and_some_are_not(workdir):
    for t in (1, 2):
        outcome = read_json(workdir / f"round_{t:02d}" / "round.json")
        assert 0 < outcome["kept"] < outcome["generated"] == 8


def test_the_rounds_learn_the_references(workdir):
    folders = ("baselines/pretrained", "round_01", "round_02")
    nll = [
        read_json(workdir / folder / "evaluation.json")["metrics"]["nll"]["value"]
        for folder in folders
    ]
    assert nll[0] > nll[1] > nll[2]


TEXTS = ("is it true that the cat sat ?", "The dog ran far away.", "é<script>\x00日")


def test_the_model_gives_the_same_logits_in_transformers(workdir):
    folder = workdir / "model"
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(info.values())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_model(
        open_model(folder), dtype="float32", mesh=make_mesh(data=1, model=1)
    )
    for text in TEXTS:
        tokens = [tokenizer(text).input_ids]
        expected = reference_logits(theirs.eval(), tokens)
        assert np.abs(logits_of(ours, tokens) - expected).max() < 1e-4


def test_the_model_is_the_last_round_s_in_every_form(workdir):
    mesh = make_mesh(data=1, model=1)
    shape = open_model(workdir / "model").config
    target = abstract_on(abstract_model(shape, dtype="float32"), mesh)
    forms = [
        load_model(open_model(workdir / "model"), dtype="float32", mesh=mesh),
        restore_tree(workdir / "round_02" / "checkpoint", target),
    ]
    first, *others = [list(map(np.asarray, jax.tree.leaves(form))) for form in forms]
    for other in others:
        assert all(map(np.array_equal, first, other))
    named = {name: jnp.asarray(value) for name, value in named_tensors(forms[0])}
    handed_over = restore_tree(workdir / "model" / "orbax", named)
    assert all(np.array_equal(handed_over[name], named[name]) for name in named)
    base = load_model(open_model(workdir.parent / "llama"), dtype="float32", mesh=mesh)
    assert not any(map(np.array_equal, first, jax.tree.leaves(base)))


def test_the_dataset_loads_and_is_what_was_kept(workdir, tmp_path):
    loaded = datasets.load_dataset(str(workdir / "dataset"), cache_dir=str(tmp_path))
    assert set(loaded) == {"train"}
    expected = kept(workdir)
    assert [row["id"] for row in loaded["train"]] == [row["id"] for row in expected]
    for row, pair in zip(loaded["train"], expected, strict=True):
        similarity = pair.pop("nearest_seed_similarity")
        assert row.pop("nearest_seed_similarity") == pytest.approx(similarity)
        assert row == pair


def test_a_script_in_an_answer_is_text_in_the_report(workdir):
    answers = [pair["answer"] for pair in kept(workdir)]
    assert any("<script>alert(" in answer for answer in answers)
    page = (workdir / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(" not in page
    assert "\\u003cscript\\u003ealert(" in page
    opened = re.findall(r"<script[^>]*>", page)
    assert len(opened) == page.count("</script>") == 2, "our data and our code"


def test_provenance_names_demos_that_exist(workdir):
    seeds = [json.loads(line)["id"] for line in open_lines(workdir / "seeds.jsonl")]
    pairs = kept(workdir)
    for pair in pairs:
        earlier = {p["id"] for p in pairs if p["round"] < pair["round"]}
        known = {*seeds, *earlier}
        assert {*pair["question_demos"], *pair["answer_demos"]} <= known
        assert len(pair["question_demos"]) == 3
        assert pair["nearest_seed"] in seeds
        assert pair["parent"] == f"M_{pair['round'] - 1}"


def open_lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_started_again_changes_nothing_and_says_so(finished, workdir):
    before, used = hashes(workdir), processor_seconds()
    again = finished.run.start()
    out, err = again.communicate()
    assert again.returncode == 0
    assert err == f"{workdir}: this run is finished, nothing is left to do\n"
    assert out == finished.process.stdout
    assert hashes(workdir) == before
    # What it takes to start Python and to read the flags.
    assert processor_seconds() - used < finished.processor_seconds / 2
