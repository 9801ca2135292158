"""Score heads as Hugging Face's and safe-rlhf's files describe them."""

from typing import Any

from isara_jax.models.formats.config_reader import ConfigReader
from isara_jax.models.formats.tensor_map import TensorMap, model_tensor
from isara_jax.models.layers import ScoreHead

SCORE_ATTRIBUTES = frozenset(
    "id2label label2id problem_type num_labels score_dim score_type bias do_normalize "
    "normalizer_type momentum mean var".split()
)
CLASSIFICATION = "ForSequenceClassification"
# safe-rlhf's reward and cost models.
SCORE = "ForScore"


def score_head(a: ConfigReader) -> ScoreHead | None:
    """Returns the score head that the architecture names, or nothing.

    Raises:
      InputError: its labels are no number, or its scores are normalised.
    """
    names = a.values.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    if architecture.endswith(CLASSIFICATION):
        labels = a.values.get("id2label")
        count = len(labels) if isinstance(labels, dict) else None
        return ScoreHead(
            labels=count or a.positive_int("num_labels", default=2),
            bias=False,
            name="score",
        )
    if architecture.endswith(SCORE):
        if a.boolean("do_normalize", default=False):
            raise a.error("do_normalize", True, "expected false")
        return ScoreHead(
            labels=a.positive_int("score_dim", default=1),
            bias=a.boolean("bias", default=False),
            name="score_head",
        )
    return None


def score_tensors(head: ScoreHead | None) -> list[TensorMap]:
    """Lists the head's parameters."""
    if head is None:
        return []
    weight = model_tensor(f"{head.name}.weight", "score")
    if not head.bias:
        return [weight]
    return [weight, model_tensor(f"{head.name}.bias", "score_bias", "flat")]


def architecture_attributes(head: ScoreHead | None, *, family: str) -> dict[str, Any]:
    """Writes the architecture, and what it says of a score head."""
    if head is None:
        return {"architectures": [f"{family}ForCausalLM"]}
    if head.name == "score":
        labels = {str(number): f"LABEL_{number}" for number in range(head.labels)}
        return {
            "architectures": [f"{family}{CLASSIFICATION}"],
            "id2label": labels,
            "label2id": {label: int(number) for number, label in labels.items()},
        }
    return {
        "architectures": [f"{family}Model{SCORE}"],
        "score_dim": head.labels,
        "bias": head.bias,
    }
