"""The files of `tools.generate`: the prompts, and the completions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import FieldError, InputError
from isara_jax.examples import read_jsonl
from isara_jax.runtime.files import Records, read_json, write_json, write_jsonl

KINDS = ("prompt", "question")


@dataclass(frozen=True, kw_only=True)
class PromptRecord:
    """A line of the input; `kind` is the field of its text, `prompt` or `question`."""

    id: str | int
    kind: str
    text: str


def read_prompts(path: Path) -> list[PromptRecord]:
    """Reads JSONL of prompts or of questions, each with an id or its line's number.

    Raises:
      InputError: a line is no JSON object, lacks both fields or has both, or has
        another one than the first line; its text is blank or no text; an id is neither
        a text nor an integer, or is repeated.
    """
    prompts: list[PromptRecord] = []
    line_of: dict[str, int] = {}
    for number, record in read_jsonl(path):
        prompt = _parse(record, f"{path}, line {number}", number=number)
        if prompt.kind != (prompts or [prompt])[0].kind:
            raise InputError(
                f"{path}, line {number}: has a {prompt.kind!r}, the first line a "
                f"{prompts[0].kind!r}; a file holds one of the two kinds"
            )
        first = line_of.setdefault(str(prompt.id), number)
        if first != number:
            raise InputError(
                f"{path}, line {number}: the id {prompt.id!r} of line {first} again"
            )
        prompts.append(prompt)
    return prompts


def _parse(record: dict[str, Any], place: str, *, number: int) -> PromptRecord:
    kinds = [kind for kind in KINDS if kind in record]
    if len(kinds) != 1:
        raise InputError(
            f"{place}: must have one of the fields 'prompt' and 'question', got "
            f"{', '.join(map(repr, record)) or 'none'}"
        )
    kind, text = kinds[0], record[kinds[0]]
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{place}: the field {kind!r} must be a text that is not blank, got "
            f"{text!r:.50}"
        )
    id = record.get("id", number)
    if not isinstance(id, str | int) or isinstance(id, bool) or id == "":
        raise InputError(
            f"{place}: the field 'id' must be a text or a whole number, got {id!r:.50}"
        )
    for value in (text, str(id)):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InputError(
                f"{place}: holds half of a surrogate pair, which is no character: "
                f"{value!r:.50}"
            )
    return PromptRecord(id=id, kind=kind, text=text)


@dataclass(frozen=True)
class Output:
    """The file of all completions, and the files beside it until it is complete."""

    path: Path

    @property
    def partial(self) -> Records:
        return Records(self.path.with_name(f"{self.path.name}.partial"))

    @property
    def settings(self) -> Path:
        return self.path.with_name(f"{self.path.name}.settings.json")

    def open(self, settings: Mapping[str, Any]) -> None:
        """Writes the settings, or checks that what exists was made with them.

        Raises:
          FieldError: it was made with others, or by something else, or is a folder.
        """
        if self.path.is_dir():
            raise FieldError("output", self.path, "is a folder, must be a file")
        if not self.path.exists() and not self.partial.path.exists():
            write_json(self.settings, dict(settings))
            return
        if not self.settings.exists():
            raise FieldError(
                "output",
                self.path,
                f"the file exists, and {self.settings.name}, which would tell what it "
                "was made with, does not; choose another `output`",
            )
        written = read_json(self.settings)
        for name in sorted(set(written) | set(settings)):
            then, now = written.get(name), settings.get(name)
            if then != now:
                raise FieldError(
                    "output",
                    self.path,
                    f"was begun with {name}={then!r}, not {now!r}; go on with the old "
                    "value or choose another `output`",
                )

    def finish(self, prompts: Sequence[PromptRecord]) -> None:
        """Writes the completions in the order of the input, by one rename."""
        found = {record["id"]: record for record in self.partial.read()}
        write_jsonl(
            self.path,
            [found[str(prompt.id)] | {"id": prompt.id} for prompt in prompts],
        )
        self.partial.path.unlink()
