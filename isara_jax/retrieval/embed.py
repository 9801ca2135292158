"""Texts as unit vectors, whose dot product is their cosine similarity."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from isara_jax.errors import InputError, first_line
from isara_jax.models.bert import Encoder, load_encoder, sentence_vectors
from isara_jax.runtime import locate
from isara_jax.runtime.files import read_json

# One compilation a padded length, whatever the number of texts. A text's own length
# decides its batch's shape, so its vector does not depend on the texts beside it.
TOKENS_PER_BATCH = 1024
SHORTEST_LENGTH = 16
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")

_sentence_vectors = jax.jit(sentence_vectors)


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """A sentence encoder with its tokenizer; texts are truncated to `max_tokens`."""

    encoder: Encoder
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts D"]:
        """Returns a unit vector for every text, in their order."""
        rows = self._tokenize(texts)
        vectors = np.zeros((len(rows), self.encoder.config.width), np.float32)
        for length, members in self._by_length(rows).items():
            size = max(1, TOKENS_PER_BATCH // length)
            for start in range(0, len(members), size):
                batch = members[start : start + size]
                vectors[batch] = self._embed_batch(
                    [rows[number] for number in batch], shape=(size, length)
                )
        return vectors

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=self.max_tokens, padding=False
        )
        return encoded["input_ids"]

    def _by_length(self, rows: Sequence[Sequence[int]]) -> dict[int, list[int]]:
        """Groups the indices of the rows by the length that they are padded to."""
        groups = defaultdict(list)
        for number, row in enumerate(rows):
            groups[min(_padded_length(len(row)), self.max_tokens)].append(number)
        return groups

    def _embed_batch(
        self, rows: Sequence[Sequence[int]], *, shape: tuple[int, int]
    ) -> Float[np.ndarray, "rows D"]:
        tokens = np.zeros(shape, np.int32)
        mask = np.zeros(shape, bool)
        mask[:, 0] = True  # a row that only fills the batch needs a token, too
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = row
            mask[number, : len(row)] = True
        vectors = _sentence_vectors(self.encoder, tokens, mask=mask)
        return np.asarray(vectors)[: len(rows)]


def load_embedder(source: str) -> Embedder:
    """Loads a sentence encoder; `source` is as for `runtime.locate`.

    Raises:
      InputError: the source is no folder of a BERT-type encoder with its tokenizer.
      EnvironmentFailure: the hub did not deliver it.
    """
    folder = locate(source)
    if not folder.is_dir():
        raise InputError(f"{folder}: an encoder is a folder, with config.json")
    encoder = load_encoder(folder)
    tokenizer = _load_tokenizer(folder)
    if len(tokenizer) > encoder.config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, but the encoder's "
            f"vocab_size is {encoder.config.vocab_size}"
        )
    return Embedder(
        encoder=encoder,
        tokenizer=tokenizer,
        max_tokens=_max_tokens(folder, tokenizer, context=encoder.config.context),
    )


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # Without either, transformers makes up a tokenizer that knows no word.
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{folder}: has neither {' nor '.join(TOKENIZER_FILES)}")
    try:
        # Left unsaid, trust_remote_code asks on the terminal where a folder has code.
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001 - tokenizers raises a bare one on damage
        raise InputError(
            f"{folder}: the tokenizer does not load ({first_line(error)})"
        ) from None


def _max_tokens(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, context: int
) -> int:
    """Returns max_seq_length of sentence_bert_config.json, or the model's own limit."""
    path = folder / "sentence_bert_config.json"
    settings = read_json(path) if path.exists() else {}
    if settings.get("do_lower_case"):
        raise InputError(f"{path}: do_lower_case=true, expected false")
    chosen = settings.get("max_seq_length") or tokenizer.model_max_length
    if not isinstance(chosen, int) or chosen < 2:
        raise InputError(f"{path}: max_seq_length={chosen!r}, expected 2 or more")
    return min(chosen, tokenizer.model_max_length, context)


def _padded_length(length: int) -> int:
    """Returns the power of two, SHORTEST_LENGTH or more, that holds the length."""
    return max(SHORTEST_LENGTH, 1 << (length - 1).bit_length())
