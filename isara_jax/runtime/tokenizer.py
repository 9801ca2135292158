"""The model's own tokenizer, from its folder or its GGUF file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoTokenizer

from isara_jax.errors import FieldError, InputError, first_line
from isara_jax.runtime.files import read_json
from isara_jax.runtime.gguf_file import GgufFile, gguf_tokenizer

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Text to token ids and back.

    Any id of `eos` ends a text; finetuning appends the first. `bos` begins a prompt,
    and is empty for a tokenizer that adds none.
    """

    hugging_face: Any
    eos: tuple[int, ...]
    bos: tuple[int, ...]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of the text alone; special tokens in it count as such."""
        return self.hugging_face.encode(text, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, special tokens left out."""
        return self.hugging_face.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def spell(self, id: int) -> str:
        """Returns the text of one id as a literal, special tokens too."""
        return repr(self.hugging_face.decode([id], clean_up_tokenization_spaces=False))

    def render_chat(
        self, turns: list[dict[str, str]], *, add_generation_prompt: bool
    ) -> str:
        """Writes a conversation in the model's own format, which runs sandboxed.

        Raises:
          FieldError: the tokenizer has no chat format, or it refuses these turns.
        """
        if not self.hugging_face.chat_template:
            raise FieldError("template", "chat", "the tokenizer has no chat format")
        try:
            return self.hugging_face.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise FieldError(
                "template", "chat", f"the model's chat format fails ({error})"
            ) from None

    def save(self, folder: Path) -> None:
        """Writes the files that transformers reads."""
        self.hugging_face.save_pretrained(folder)


def load_tokenizer(source: Path | GgufFile) -> Tokenizer:
    """Loads the tokenizer of a model's folder, or the one in a GGUF file's metadata.

    Nothing is fetched, and no code of the folder is run.

    Raises:
      InputError: there is none, or it is damaged, or has no end-of-text token.
    """
    path = source.path if isinstance(source, GgufFile) else source
    if path.is_dir() and not any((path / name).is_file() for name in FILES):
        # transformers would make one up that knows its special tokens only.
        raise InputError(f"{path}: no tokenizer in the folder ({', '.join(FILES)})")
    try:
        if isinstance(source, GgufFile):
            loaded = gguf_tokenizer(source)
        else:
            loaded = _of_folder(source)
    except Exception as error:  # noqa: BLE001 - damaged files raise every kind there
        raise InputError(
            f"{path}: the tokenizer does not load ({first_line(error)})"
        ) from None
    if loaded.eos_token_id is None:
        raise InputError(f"{path}: the tokenizer names no end-of-text token")
    adds_bos = loaded("x").input_ids[:1] == [loaded.bos_token_id]
    return Tokenizer(
        hugging_face=loaded,
        eos=_ends(loaded.eos_token_id, path),
        bos=(loaded.bos_token_id,) if adds_bos else (),
    )


def _of_folder(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )


def _ends(eos: int, source: Path) -> tuple[int, ...]:
    """Adds what the model's generation config names, such as an end of turn."""
    config = source / "generation_config.json"
    attributes = read_json(config) if config.is_file() else {}
    if not isinstance(attributes, dict):
        raise InputError(f"{config}: expected a JSON object")
    named = attributes.get("eos_token_id")
    others = named if isinstance(named, list) else [named]
    return (eos, *(id for id in others if isinstance(id, int) and id != eos))
