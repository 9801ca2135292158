"""The OPT family as one value, for the table in `models.families`."""

from isara_jax.models.formats import Family
from isara_jax.models.opt.huggingface import config_from_hf, config_to_hf, tensor_maps
from isara_jax.models.opt.model import Opt, OptConfig

OPT = Family(
    label="an OPT",
    model_types=("opt",),
    config_type=OptConfig,
    build=Opt,
    config_from_hf=config_from_hf,
    config_to_hf=config_to_hf,
    tensor_maps=tensor_maps,
)
