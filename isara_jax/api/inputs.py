"""Converts what a notebook passes (tuples, mappings, paths) into examples and pools."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isara_jax.errors import InputError
from isara_jax.examples import (
    Example,
    HeldOut,
    Place,
    Pool,
    make_example,
    make_heldout,
    make_seeds,
    read_heldout,
    read_jsonl,
    read_seeds,
)
from isara_jax.runtime import locate_packaged

Pair = tuple[str, str] | Mapping[str, str] | Example
"""A question and its answer: a tuple, a mapping of both fields, or an example."""

Pairs = str | Path | Iterable[Pair]
"""Pairs, or the path of a JSONL file of `question` and `answer`."""

HeldOutItems = str | Path | Iterable[Mapping[str, Any] | HeldOut]
"""Held-out items with the fields `question`, `true` and `false`, or a JSONL file."""


def seeds_of(pairs: Pairs, *, at_least: int) -> Pool:
    """Returns D_0.

    Raises:
      InputError: a pair lacks a text, two questions are equal, there are fewer than
        `at_least`, or the file is none of pairs.
    """
    if isinstance(pairs, str | Path):
        return read_seeds(locate_packaged(pairs), at_least=at_least)
    records = (
        (place, _pair_record(pair, place)) for place, pair in _placed(pairs, "seeds")
    )
    return make_seeds(records, source="", at_least=at_least)


def examples_of(pairs: Pairs) -> tuple[Example, ...]:
    """Returns the pairs to finetune on; an example keeps its origin.

    Raises:
      InputError: there is none, a pair lacks a text, or the file is none of pairs.
    """
    if isinstance(pairs, str | Path):
        path = locate_packaged(pairs)
        given: Iterable[tuple[Place, Any]] = (
            (Place(str(path), f"line {line}"), record)
            for line, record in read_jsonl(path)
        )
    else:
        given = _placed(pairs, "examples")
    examples = tuple(
        make_example(
            _pair_record(pair, place),
            place,
            origin=pair.origin if isinstance(pair, Example) else f"example-{index:04d}",
        )
        for index, (place, pair) in enumerate(given)
    )
    if not examples:
        raise InputError("examples: there is none to finetune on")
    return examples


def heldout_of(items: HeldOutItems) -> tuple[HeldOut, ...]:
    """Returns the held-out items.

    Raises:
      InputError: there is none, a field is missing or of another kind, two questions
        are equal, or the file is none of held-out items.
    """
    if isinstance(items, str | Path):
        return read_heldout(locate_packaged(items))
    found = make_heldout(
        (place, _heldout_record(item, place))
        for place, item in _placed(items, "heldout")
    )
    if not found:
        raise InputError("heldout: there is no item to evaluate on")
    return found


def _placed(values: Iterable[Any], source: str) -> Iterable[tuple[Place, Any]]:
    for index, value in enumerate(values):
        yield Place(source, f"index {index}"), value


def _pair_record(pair: Any, place: Place) -> Mapping[str, Any]:
    if isinstance(pair, Example):
        return {"question": pair.question, "answer": pair.answer}
    if isinstance(pair, Mapping):
        return pair
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return {"question": pair[0], "answer": pair[1]}
    raise InputError(
        f"{place}: must be (question, answer), a mapping of the two, or an Example, "
        f"got {pair!r:.50}"
    )


def _heldout_record(item: Any, place: Place) -> Mapping[str, Any]:
    if isinstance(item, HeldOut):
        return {
            "question": item.question,
            "true": list(item.true),
            "false": list(item.false),
        }
    if isinstance(item, Mapping):
        return item
    raise InputError(
        f"{place}: must be a mapping of 'question', 'true' and 'false', or a HeldOut, "
        f"got {item!r:.50}"
    )
