"""Wrong input is one sentence, and once mended the same command goes on.

What the modules refuse has its details tested with them; this table shows that it
reaches the user.
"""

import json
import os
import shutil

import numpy as np
import pytest
from changes import change_json, change_tensors


def change_line(path, number, change):
    lines = path.read_bytes().splitlines()
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines) + b"\n")


def without(field):
    def change(line):
        record = json.loads(line)
        del record[field]
        return json.dumps(record).encode()

    return change


def swap_suffix(folder, suffix):
    (folder / "model.safetensors").rename(folder / f"pytorch_model{suffix}")


UP = "model.layers.1.mlp.up_proj.weight"

# What is done to the run's files, the file that is at fault, what is said of it.
WRONG_INPUT = {
    "seeds missing": (lambda r: r.seeds.unlink(), "seeds", "no such file"),
    "seeds empty": (lambda r: r.seeds.write_text("\n"), "seeds", "the file is empty"),
    "seeds not UTF-8": (
        lambda r: change_line(r.seeds, 3, lambda line: line.replace(b"?", b"\xff")),
        "seeds",
        "line 3: not UTF-8",
    ),
    "seeds malformed": (
        lambda r: change_line(r.seeds, 12, lambda line: line[:-1]),
        "seeds",
        "line 12: not JSON",
    ),
    "seeds lack a field": (
        lambda r: change_line(r.seeds, 2, without("answer")),
        "seeds",
        "line 2: the field 'answer' is missing",
    ),
    "seeds duplicated": (
        lambda r: r.seeds.write_bytes(r.seeds.read_bytes() * 2),
        "seeds",
        "line 13: the question of line 1 again",
    ),
    "seeds fewer than demos": (
        lambda r: r.seeds.write_bytes(
            b"".join(r.seeds.read_bytes().splitlines(True)[:2])
        ),
        "seeds",
        "2 seeds, but a prompt of this run holds 3",
    ),
    "heldout missing": (lambda r: r.heldout.unlink(), "heldout", "no such file"),
    "heldout empty": (lambda r: r.heldout.write_text(""), "heldout", "is empty"),
    "heldout not UTF-8": (
        lambda r: change_line(r.heldout, 6, lambda line: line.replace(b"?", b"\xff")),
        "heldout",
        "line 6: not UTF-8",
    ),
    "heldout malformed": (
        lambda r: change_line(r.heldout, 1, lambda line: b"{" + line),
        "heldout",
        "line 1: not JSON",
    ),
    "heldout lacks a field": (
        lambda r: change_line(r.heldout, 4, without("false")),
        "heldout",
        "line 4: the field 'false' must be a list",
    ),
    "heldout duplicated": (
        lambda r: r.heldout.write_bytes(r.heldout.read_bytes() * 2),
        "heldout",
        "line 7: the question of line 1 again",
    ),
    "model missing": (lambda r: shutil.rmtree(r.model), "model", "no such file"),
    "model without weights": (
        lambda r: (r.model / "model.safetensors").unlink(),
        "model",
        "no .safetensors file in the folder",
    ),
    "model without config": (
        lambda r: (r.model / "config.json").unlink(),
        "model",
        "no config.json in the folder",
    ),
    "model without tokenizer": (
        lambda r: (r.model / "tokenizer.json").unlink(),
        "model",
        "no tokenizer in the folder",
    ),
    "model config damaged": (
        lambda r: (r.model / "config.json").write_text("{"),
        "model",
        "damaged, not JSON",
    ),
    "model of another architecture": (
        lambda r: change_json(r.model / "config.json", model_type="mamba"),
        "model",
        "model_type='mamba', expected one of llama",
    ),
    "model of an unknown attribute": (
        lambda r: change_json(r.model / "config.json", logit_softcap=30.0),
        "model",
        "logit_softcap=30.0, an attribute that is unknown here",
    ),
    "model lacks a tensor": (
        lambda r: change_tensors(r.model, lambda tensors: tensors.pop(UP)),
        "model",
        f"the tensor '{UP}' is missing",
    ),
    "model has a mis-shaped tensor": (
        lambda r: change_tensors(
            r.model, lambda tensors: tensors.update({UP: np.zeros((2, 3), np.float32)})
        ),
        "model",
        f"the tensor '{UP}' has the shape [2, 3], expected [48, 32]",
    ),
    "model has a tensor too many": (
        lambda r: change_tensors(
            r.model, lambda tensors: tensors.update(lora=np.zeros(3, np.float32))
        ),
        "model",
        "the tensor 'lora' is unknown",
    ),
    "model torn": (
        lambda r: os.truncate(r.model / "model.safetensors", 5000),
        "model",
        "not a whole safetensors file",
    ),
    "model a pickle": (
        lambda r: swap_suffix(r.model, ".bin"),
        "model",
        "its only weights are pickles; a pickle runs code when it is read; convert it",
    ),
    "encoder a pickle": (
        lambda r: swap_suffix(r.encoder, ".bin"),
        "encoder",
        "its only weights are pickles",
    ),
    "encoder of another architecture": (
        lambda r: change_json(r.encoder / "config.json", model_type="t5"),
        "encoder",
        "model_type='t5', expected 'bert'",
    ),
}


@pytest.mark.parametrize("case", WRONG_INPUT)
def test_wrong_input_is_one_sentence_and_once_mended_goes_on(
    case, run, call, template, reaches_the_work
):
    spoil, name, sentence = WRONG_INPUT[case]
    path = getattr(run, name)
    spoil(run)
    code, lines = call()
    assert (code, len(lines)) == (2, 1), lines
    assert str(path) in lines[0] and sentence in lines[0]

    original = getattr(template, name)
    if original.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
    else:
        shutil.copy(original, path)
    assert reaches_the_work()
