"""What the rounds train: M_0, the shared base, resuming, and what is handed over."""

import numpy as np
import pytest
from finetuning_rig import EXAMPLES, arrays, finetuned, same, stop_at_step
from peft_twin import drawn_adapters
from tiny_run import main_in_process, write_tiny_llama, write_tiny_run

from isara_jax.errors import InputError
from isara_jax.finetune.lora_config import LoraConfig
from isara_jax.finetune.trainable import make_trainable
from isara_jax.models.checkpoints.load import load_model, named_tensors
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.lora.peft import write_adapters
from isara_jax.run.workdir import RoundFolder
from isara_jax.runtime.files.records import read_json
from isara_jax.runtime.mesh import make_mesh
from isara_jax.runtime.signals import StopRequested
from isara_jax.runtime.sources import locate

SIZES = {"lora_rank": 2, "lora_alpha": 4.0, "lora_targets": "heads,mlp"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_tiny_llama(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(source, tmp_path_factory):
    """Adapters of rank 2 as PEFT writes them."""
    folder, model = tmp_path_factory.mktemp("adapter"), loaded(source)
    given = drawn_adapters(model, "heads", "mlp", rank=2, alpha=4.0)
    write_adapters(folder, given, model.config, base="")
    return folder


def loaded(source, *, adapter=None):
    mesh = make_mesh(data=1, model=1)
    opened = open_model(source, adapter=adapter)
    return load_model(opened, dtype="float32", mesh=mesh)


def trainable_of(source, adapter=None, **values):
    return make_trainable(
        open_model(source),
        LoraConfig(**values),
        adapter=adapter,
        dtype="float32",
        seed=3,
        mesh=make_mesh(data=1, model=1),
    )


def trained(trainable, folder, *, start=None, **more):
    start = start or trainable.pretrained()
    return finetuned(folder, start=start, trainable=trainable, **more)


def most_moved(before, after):
    """Returns the largest change of any number."""
    pairs = zip(before, arrays(after), strict=True)
    return max(np.abs(one - two).max() for one, two in pairs)


def test_without_a_rank_the_model_itself_is_trained(source):
    trainable = trainable_of(source)
    assert trainable.base is None
    assert trainable.pretrained().adapters is None
    assert same(trainable.pretrained()(), loaded(source))


def test_a_given_adapter_is_merged_into_what_is_trained(source, adapter):
    whole = trainable_of(source, adapter=adapter).pretrained()()
    assert same(whole, loaded(source, adapter=adapter))
    assert not same(whole, loaded(source))


def test_rounds_share_one_base_and_go_on_from_each_other(source, tmp_path):
    trainable = trainable_of(source, **SIZES)
    base, start = trainable.base(), trainable.pretrained()
    assert start() is base, "fresh adapters add nothing"
    first = trained(trainable, RoundFolder(tmp_path / "1"), start=start)
    before, one = arrays(first.adapters), first()
    second = trained(trainable, RoundFolder(tmp_path / "2"), start=first, round_index=2)
    two = second()
    assert trainable.base() is base
    assert same(base, loaded(source)), "what is shared is not trained"
    assert one.embedding.get_value() is base.embedding.get_value()
    assert not same(one, base) and not same(one, two)
    # From fresh ones, round 2 would be nearer to the base than round 1 is.
    assert 0 < most_moved(before, second.adapters) < 0.05
    second.unload()
    assert same(second(), two), "read from its checkpoint, and merged again"


@pytest.mark.parametrize("base_dtype", ["keep", "nf4"])
def test_a_stopped_finetuning_goes_on_to_the_same_bytes(source, tmp_path, base_dtype):
    trainable = trainable_of(source, base_dtype=base_dtype, **SIZES)
    expected = trained(trainable, RoundFolder(tmp_path / "alone"))
    folder = RoundFolder(tmp_path / "stopped")
    with pytest.raises(StopRequested):
        trained(trainable, folder, stops=stop_at_step(3))
    state = next(folder.path.glob("train_state_*"))
    names = read_json(state / "_METADATA")["tree_metadata"]
    assert not any("embedding" in name for name in names), "adapters only"
    again = trained(trainable, folder)
    assert same(again.adapters, expected.adapters)
    assert same(again(), expected())


def test_a_quantised_base_is_for_training_and_m_0_is_whole(source, tmp_path):
    trainable = trainable_of(source, base_dtype="int8", **SIZES)
    start = trainable.pretrained()
    assert same(start(), loaded(source))
    tuned = trained(
        trainable, RoundFolder(tmp_path), start=start, examples=EXAMPLES[:2]
    )
    tensors = dict(named_tensors(loaded(source)))
    for name, value in named_tensors(tuned()):
        close = np.allclose(value, tensors[name], atol=0.05)
        assert close and np.array_equal(value, tensors[name]) != ("proj" in name), name


def test_a_given_adapter_is_trained_further(source, adapter, tmp_path):
    trainable = trainable_of(source, adapter=adapter, **SIZES)
    start = trainable.pretrained()
    assert most_moved(arrays(start()), loaded(source, adapter=adapter)) < 1e-5
    given = arrays(start.adapters)
    tuned = trained(trainable, RoundFolder(tmp_path), start=start)
    assert 0 < most_moved(given, tuned.adapters) < 0.1


@pytest.mark.parametrize(
    "changes", [{"lora_rank": 3}, {"lora_alpha": 5.0}, {"lora_targets": "q"}]
)
def test_other_adapters_than_asked_for_are_refused(source, adapter, changes):
    message = "is of rank 2, alpha 4 and on q,o,gate,up,down; give these to `lora_rank`"
    with pytest.raises(InputError, match=message):
        trainable_of(source, adapter=adapter, **SIZES | changes)


def test_a_target_of_no_kernel_is_refused(source):
    with pytest.raises(InputError, match="lora_targets=w: 'w' is no linear weight"):
        trainable_of(source, lora_rank=2, lora_targets="w")


def test_pickled_adapters_are_refused(source, adapter, tmp_path):
    for path in adapter.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="pickle runs code"):
        trainable_of(source, adapter=locate(str(tmp_path)), **SIZES)


@pytest.mark.slow
def test_a_run_hands_its_adapters_over(tmp_path):
    run = write_tiny_run(tmp_path)
    flags = {"rounds": 1, "candidates": 4, "heldout": "", "base_dtype": "nf4"}
    assert main_in_process(run.flags(**flags, **SIZES)) == 0
    model = run.workdir / "model"
    settings = read_json(model / "adapter" / "adapter_config.json")
    assert (settings["r"], settings["lora_alpha"]) == (2, 4.0)
    assert settings["base_model_name_or_path"] == str(run.model)
    # nf4 is what was trained on; on the model as it was the adapters mean nearly that.
    merged = dict(named_tensors(loaded(run.model, adapter=model / "adapter")))
    for name, value in named_tensors(loaded(model)):
        np.testing.assert_allclose(value, merged[name], atol=0.03)
