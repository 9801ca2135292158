import pytest

from isara_jax.errors import InputError
from isara_jax.finetune.lora_config import LoraConfig


def test_without_a_rank_there_are_no_adapters():
    config = LoraConfig()
    assert config.lora_rank == 0 and config.base_dtype == "keep"


def test_targets_are_words_between_commas():
    config = LoraConfig(lora_rank=2, lora_targets=" q, mlp,")
    assert config.targets == ("q", "mlp")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lora_rank": -1}, "lora_rank=-1: must be 0 or more"),
        ({"lora_alpha": 0.0}, "lora_alpha=0.0: must be above 0"),
        ({"lora_rank": 2, "lora_targets": " ,"}, "lora_targets: must name a weight"),
        ({"base_dtype": "nf4"}, "base_dtype=nf4: needs `lora_rank`"),
    ],
)
def test_refused(values, message):
    with pytest.raises(InputError, match=message):
        LoraConfig(**values)
