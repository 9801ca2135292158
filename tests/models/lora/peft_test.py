"""PEFT's adapters into a model's tensors, and folders that are refused."""

import json

import numpy as np
import pytest
from peft_twin import adapted_twin, change_config, logits, saved
from safetensors.numpy import load_file, save_file
from tiny_llama import TINY, tiny_llama, torch_llama
from tiny_opt import write_opt

from isara_jax.errors import InputError
from isara_jax.models.checkpoints.open import open_model
from isara_jax.models.checkpoints.verify import outputs
from isara_jax.models.lora.peft import TENSORS, open_peft

TOKENS = tuple(range(3, 15))


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder that peft has written for the tiny LLaMA."""
    folder = tmp_path_factory.mktemp("given")
    return saved(adapted_twin(torch_llama(tiny_llama()), ["q_proj", "up_proj"]), folder)


@pytest.fixture
def folder(given, tmp_path):
    """A copy, to be damaged."""
    for path in given.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change_tensors(folder, change):
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


def test_settings_and_kernels_are_read(given):
    peft = open_peft(given, TINY)
    assert (peft.rank, peft.scale, peft.weights) == (4, 2.0, ("q", "up"))


def test_a_rank_stabilised_scale(folder):
    change_config(folder, use_rslora=True)
    assert open_peft(folder, TINY).scale == 4.0


def test_merged_tensors_say_what_peft_says(tmp_path):
    twin = write_opt(tmp_path / "model")
    base = open_model(tmp_path / "model")
    before = outputs(base, TOKENS, dtype="float32")
    model = adapted_twin(twin, ["k_proj", "out_proj", "fc2"])
    adapter = saved(model, tmp_path / "adapter")
    found = outputs(base.with_adapter(adapter), TOKENS, dtype="float32")
    np.testing.assert_allclose(found, logits(model, [TOKENS])[0], atol=1e-4)
    assert np.abs(found - before).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3', expected 'LORA'"),
        ({"use_dora": True}, "use_dora=True, a setting that is not computed here"),
        ({"rank_pattern": {"q": 2}}, "rank_pattern=.* not computed here"),
        ({"bias": "all"}, "bias='all', a setting that is not computed"),
        ({"modules_to_save": ["x"]}, "modules_to_save=.* not computed here"),
        ({"new_setting": 3}, "new_setting=3, a setting that is not computed"),
        ({"init_lora_weights": "pissa"}, "init_.*='pissa', a beginning that changes"),
        ({"r": 0}, "r=0, expected a whole number above 0"),
        ({"lora_alpha": "x"}, "lora_alpha='x', expected a number above 0"),
    ],
)
def test_settings_that_are_not_computed_are_refused(folder, changes, message):
    change_config(folder, **changes)
    with pytest.raises(InputError, match=f"adapter_config.json: {message}"):
        open_peft(folder, TINY)


NAME = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def test_tensors_of_no_kernel_are_refused(folder):
    def change(tensors):
        tensors[NAME.replace("q_proj", "w_proj")] = tensors[NAME]

    change_tensors(folder, change)
    with pytest.raises(
        InputError, match=r"w_proj.lora_A.weight' adapts no linear weight"
    ):
        open_peft(folder, TINY)


def test_a_layer_without_its_adapter_is_refused(folder):
    change_tensors(folder, lambda tensors: tensors.pop(NAME))
    with pytest.raises(InputError, match=r"'base.*q_proj.lora_A.weight' is missing"):
        open_peft(folder, TINY)


def test_a_folder_without_adapters_is_refused(folder):
    change_tensors(folder, lambda tensors: tensors.clear())
    with pytest.raises(InputError, match="holds no adapter"):
        open_peft(folder, TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no adapter_config.json in the folder"), ("[]", "expected a JSON object")],
)
def test_a_folder_without_settings_is_refused(folder, content, message):
    path = folder / "adapter_config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=message):
        open_peft(folder, TINY)


def test_a_rank_that_the_tensors_have_not_is_refused(folder):
    change_config(folder, r=5)
    peft = open_peft(folder, TINY)
    with pytest.raises(InputError, match="no adapter of rank 5"):
        peft.delta("model.layers.1.self_attn.q_proj.weight")
    assert peft.delta("model.norm.weight") is None


def test_an_adapter_of_another_base_is_refused(given, tmp_path):
    write_opt(tmp_path)
    with pytest.raises(InputError, match="adapts no linear weight of the layers"):
        open_peft(given, open_model(tmp_path).config)
    config = json.loads((given / "adapter_config.json").read_text())
    assert set(config["target_modules"]) == {"q_proj", "up_proj"}
