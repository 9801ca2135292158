"""Seeds and held-out items as read, every way in which a file can be wrong, pools."""

import json

import pytest

from isara_jax.errors import InputError
from isara_jax.examples import demos_per_pool, read_heldout, read_jsonl, read_seeds

SEED = {"question": "Why is the sky blue?", "answer": "Air scatters blue light most."}
ITEM = {"question": "Who won?", "true": ["Ada", "Ada did"], "false": ["Bob"]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.jsonl"


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def message_of(read):
    with pytest.raises(InputError) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_seeds_are_numbered_in_their_order(path):
    path.write_bytes(lines(SEED) + b"\n \n" + lines(SEED | {"question": " Two? "}))
    pool = read_seeds(path, at_least=2)
    assert pool.round_index == 0 and len(pool) == 2
    assert [e.origin for e in pool.examples] == ["seed-0000", "seed-0001"]
    assert pool.examples[1].question == "Two?"
    assert pool.examples[0].answer == SEED["answer"]


def test_heldout_items_keep_the_order_of_their_references(path):
    path.write_bytes(lines(ITEM))
    (item,) = read_heldout(path)
    assert (item.question, item.true, item.false) == (
        "Who won?",
        ("Ada", "Ada did"),
        ("Bob",),
    )


def test_a_last_line_needs_no_newline_and_windows_ends_are_no_text(path):
    path.write_bytes(
        lines(SEED).replace(b"\n", b"\r\n") + b'{"question": "q", "answer": "a"}'
    )
    assert [e.answer for e in read_seeds(path, at_least=1).examples] == [
        SEED["answer"],
        "a",
    ]


def test_a_separator_of_unicode_ends_no_line(path):
    path.write_bytes('{"question": "a\u2028b\x85c", "answer": "d"}'.encode())
    assert read_seeds(path, at_least=1).examples[0].question == "a\u2028b\x85c"


BOTH = ITEM | SEED
WRONG_FILES = {
    "empty": (b"", "the file is empty"),
    "blank lines only": (b"\n\n  \n", "the file is empty"),
    "not UTF-8": (
        lines(BOTH) + b'{"question": "caf\xe9", "answer": "a"}\n',
        "line 2: not UTF-8 (byte 17 of the line is 0xe9)",
    ),
    "not JSON": (lines(BOTH) + b"\n{'question': 1}\n", "line 3: not JSON ("),
    "torn": (lines(BOTH)[:20], "line 1: not JSON ("),
    "no object": (
        b'["question"]\n',
        "line 1: expected a JSON object, got ['question']",
    ),
    "too deep": (b"[" * 100_000, "line 1: not JSON ("),
    "a number of 5,000 digits": (b"1" * 5000, "line 1: not JSON ("),
    "no question": (lines({"answer": "a"}), "line 1: the field 'question' is missing"),
    "a number": (
        lines(BOTH | {"question": 7}),
        "line 1: the field 'question' must be a text that is not blank, got 7",
    ),
    "blank text": (
        lines(BOTH, BOTH | {"question": " \t"}),
        "line 2: the field 'question' must be a text that is not blank, got ' \\t'",
    ),
    "half a character": (
        b'{"question": "\\ud800", "answer": "a"}',
        "line 1: the field 'question' holds half of a surrogate pair",
    ),
}


@pytest.mark.parametrize("read", [lambda p: read_seeds(p, at_least=1), read_heldout])
@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_file_is_refused_by_its_line(path, kind, read):
    content, expected = WRONG_FILES[kind]
    path.write_bytes(content)
    message = message_of(lambda: read(path))
    assert message.startswith(str(path)) and expected in message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    missing = tmp_path / "none.jsonl"
    assert message_of(lambda: list(read_jsonl(missing))) == f"{missing}: no such file"
    assert "is a folder" in message_of(lambda: list(read_jsonl(tmp_path)))


def test_a_question_must_not_come_twice(path):
    path.write_bytes(lines(SEED, SEED | {"question": "WHY is the sky blue? "}))
    message = message_of(lambda: read_seeds(path, at_least=1))
    assert message == (
        f"{path}, line 2: the question of line 1 again: 'WHY is the sky blue?'"
    )
    path.write_bytes(lines(ITEM, ITEM))
    assert "line 2: the question of line 1 again" in message_of(
        lambda: read_heldout(path)
    )


def test_an_answer_may_be_missing_from_no_seed(path):
    path.write_bytes(lines({"question": "q"}))
    message = message_of(lambda: read_seeds(path, at_least=1))
    assert message == f"{path}, line 1: the field 'answer' is missing"


def test_fewer_seeds_than_a_prompt_holds_are_refused(path):
    path.write_bytes(lines(SEED))
    message = message_of(lambda: read_seeds(path, at_least=2))
    assert message.startswith(
        f"seeds={path}: 1 seeds, but a prompt of this run holds 2"
    )


@pytest.mark.parametrize("field", ["true", "false"])
@pytest.mark.parametrize("value", [None, [], "a text", [" "], [1]])
def test_references_are_lists_of_texts(path, field, value):
    path.write_bytes(lines(ITEM | {field: value}))
    message = message_of(lambda: read_heldout(path))
    assert f"{path}, line 1: the field {field!r} must be" in message


def test_demos_move_from_the_seeds_to_the_later_pools():
    counts = [demos_per_pool(8, round_index=t) for t in (1, 2, 3, 4)]
    assert counts == [(8,), (7, 1), (6, 1, 1), (5, 1, 1, 1)]
