"""Examples, held-out items, and the pools D_0 ... D_t, with the files that hold them.

D_0 are the seeds, D_t what round t keeps (docs/method.md, "The algorithm"). Files are
JSONL in UTF-8, one object a line.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isara_jax.errors import FieldError, InputError


@dataclass(frozen=True, kw_only=True)
class Example:
    """A (question, answer) pair; `origin` is its id: `seed-0007` or `r01-0012`."""

    question: str
    answer: str
    origin: str


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """An evaluation item: references that are true, best first, and false ones."""

    question: str
    true: tuple[str, ...]
    false: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question that the model wrote, and the ids of its prompt's demonstrations."""

    id: str
    sample_index: int
    text: str
    demos: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A question with its answer, before the filter."""

    id: str
    question: str
    answer: str
    answer_finish: str
    question_demos: tuple[str, ...]
    answer_demos: tuple[str, ...]
    nearest_seed: str
    nearest_seed_similarity: float


@dataclass(frozen=True, kw_only=True)
class Pool:
    """D_t: the examples of one round, or the seeds as round 0."""

    round_index: int
    examples: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class Place:
    """Where a record was given, for errors: a file and its line, or a list's index."""

    source: str
    item: str

    def __str__(self) -> str:
        return f"{self.source}, {self.item}"


Records = Iterable[tuple[Place, Mapping[str, Any]]]


def read_seeds(path: Path, *, at_least: int) -> Pool:
    """Reads D_0 from JSONL with the fields `question` and `answer`.

    Raises:
      InputError: the file is missing, empty or not UTF-8, a line is no JSON object or
        lacks a field, two questions are equal, or there are fewer than `at_least`.
    """
    return make_seeds(_lines(path), source=str(path), at_least=at_least)


def make_seeds(records: Records, *, source: str, at_least: int) -> Pool:
    """Makes D_0 of records with the fields `question` and `answer`.

    `source` is the path of their file, or empty where there is none.

    Raises:
      InputError: a field is missing or no text, two questions are equal, or there are
        fewer than `at_least`.
    """
    examples: list[Example] = []
    seen: dict[str, Place] = {}
    for place, record in records:
        example = make_example(record, place, origin=f"seed-{len(examples):04d}")
        _refuse_duplicate(example.question, seen, place)
        examples.append(example)
    if len(examples) < at_least:
        raise FieldError(
            "seeds",
            source,
            f"{len(examples)} seeds, but a prompt of this run holds {at_least} "
            "demonstrations; add seeds or lower `demos`",
        )
    return Pool(round_index=0, examples=tuple(examples))


def make_example(record: Mapping[str, Any], place: Place, *, origin: str) -> Example:
    """Makes an example of a record with the fields `question` and `answer`.

    Raises:
      InputError: a field is missing or no text.
    """
    return Example(
        question=_text(record, "question", place),
        answer=_text(record, "answer", place),
        origin=origin,
    )


def read_heldout(path: Path) -> tuple[HeldOut, ...]:
    """Reads the held-out set: JSONL of `question`, `true` and `false` (lists of texts).

    Raises:
      InputError: as `read_seeds`, or a list is empty or holds something but texts.
    """
    return make_heldout(_lines(path))


def make_heldout(records: Records) -> tuple[HeldOut, ...]:
    """Makes the held-out set of records with the fields of `read_heldout`.

    Raises:
      InputError: a field is missing or of another kind, or two questions are equal.
    """
    items: list[HeldOut] = []
    seen: dict[str, Place] = {}
    for place, record in records:
        item = HeldOut(
            question=_text(record, "question", place),
            true=_texts(record, "true", place),
            false=_texts(record, "false", place),
        )
        _refuse_duplicate(item.question, seen, place)
        items.append(item)
    return tuple(items)


def _lines(path: Path) -> Records:
    for number, record in read_jsonl(path):
        yield Place(str(path), f"line {number}"), record


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) for every line that is not blank.

    Raises:
      InputError: the file is missing, not UTF-8 or empty, or a line is no JSON object.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, expected a JSONL file") from None
    found = False
    for number, line in enumerate(raw.split(b"\n"), start=1):
        if not line.strip():
            continue
        found = True
        yield number, _json_object(line, path, number)
    if not found:
        raise InputError(f"{path}: the file is empty")


def _json_object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 (byte {error.start} of the line is "
            f"0x{line[error.start]:02x})"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(
            f"{path}, line {number}: expected a JSON object, got {record!r:.50}"
        )
    return record


def _text(record: Mapping[str, Any], field: str, place: Place) -> str:
    if field not in record:
        raise InputError(f"{place}: the field {field!r} is missing")
    return _stripped(record[field], field, place)


def _texts(record: Mapping[str, Any], field: str, place: Place) -> tuple[str, ...]:
    value = record.get(field)
    if not isinstance(value, list) or not value:
        raise InputError(
            f"{place}: the field {field!r} must be a list of one or more texts, got "
            f"{value!r}"
        )
    return tuple(_stripped(text, field, place) for text in value)


def _stripped(value: object, field: str, place: Place) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(
            f"{place}: the field {field!r} must be a text that is not blank, got "
            f"{value!r}"
        )
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(
            f"{place}: the field {field!r} holds half of a surrogate pair, which is no "
            f"character: {value!r}"
        )
    return value.strip()


def _refuse_duplicate(question: str, seen: dict[str, Place], place: Place) -> None:
    first = seen.setdefault(question.casefold(), place)
    if first != place:
        raise InputError(f"{place}: the question of {first.item} again: {question!r}")


def demos_per_pool(demos: int, *, round_index: int) -> tuple[int, ...]:
    """Returns how many demonstrations each of D_0 ... D_{t-1} gives in round t.

    K - (t - 1) from the seeds and one from every later pool, K = `demos`; see
    docs/method.md, "The algorithm".
    """
    return (demos - (round_index - 1), *([1] * (round_index - 1)))
