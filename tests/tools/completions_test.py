"""Requests line by line, and an output that is whole, begun, or somebody else's."""

import json
import re

import pytest

from isara_jax.errors import InputError
from isara_jax.tools.completions import Output, PromptRecord, read_prompts


def written(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.jsonl"


def test_a_line_s_number_is_its_id_unless_it_has_one(path):
    lines = ('{"prompt": " a "}', "", '{"prompt": "b", "id": "x", "more": 1}')
    assert read_prompts(written(path, *lines, '{"prompt": "c", "id": 7}')) == [
        PromptRecord(id=1, kind="prompt", text=" a "),
        PromptRecord(id="x", kind="prompt", text="b"),
        PromptRecord(id=7, kind="prompt", text="c"),
    ]


def test_questions_are_read_as_such(path):
    (prompt,) = read_prompts(written(path, '{"question": "Is it?"}'))
    assert prompt == PromptRecord(id=1, kind="question", text="Is it?")


FIRST = '{"prompt": "a"}'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ("{}", "must have one of the fields 'prompt' and 'question', got none"),
        ('{"text": "a"}', "'prompt' and 'question', got 'text'"),
        ('{"prompt": "a", "question": "b"}', "got 'prompt', 'question'"),
        ('{"prompt": " "}', "the field 'prompt' must be a text that is not blank"),
        ('{"prompt": ["a"]}', "'prompt' must be a text that is not blank, got ['a']"),
        ('{"prompt": "\\ud800"}', "holds half of a surrogate pair"),
        ('{"prompt": "a", "id": "\\ud800"}', "holds half of a surrogate pair"),
        ('{"prompt": "a", "id": ""}', "'id' must be a text or a whole number, got ''"),
        ('{"prompt": "a", "id": true}', "or a whole number, got True"),
        ('{"prompt": "a", "id": 1.5}', "or a whole number, got 1.5"),
        ('{"prompt": "a", "id": null}', "or a whole number, got None"),
        ('{"prompt": "a", "id": 1}', "the id 1 of line 1 again"),
        ('{"prompt": "a", "id": "1"}', "the id '1' of line 1 again"),
        ('{"question": "a"}', "has a 'question', the first line a 'prompt'"),
    ],
)
def test_a_wrong_line_is_named(path, line, sentence):
    with pytest.raises(InputError) as caught:
        read_prompts(written(path, FIRST, line))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


SETTINGS = {"model": "m", "stop": [], "seed": 3}
RECORDS = [{"id": "7", "text": "b"}, {"id": "x", "text": "a"}]
REQUESTS = [
    PromptRecord(id="x", kind="prompt", text=""),
    PromptRecord(id=7, kind="prompt", text=""),
]


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "folder" / "out.jsonl")


def test_an_output_ends_in_the_order_of_the_input_with_the_ids_as_given(output):
    output.open(SETTINGS)
    output.partial.append(RECORDS)
    assert not output.path.exists()
    output.finish(REQUESTS)
    assert list(map(json.loads, output.path.read_text().splitlines())) == [
        {"id": "x", "text": "a"},
        {"id": 7, "text": "b"},
    ]
    assert sorted(path.name for path in output.path.parent.iterdir()) == [
        *("out.jsonl", "out.jsonl.settings.json")
    ]


@pytest.mark.parametrize("finished", [False, True])
def test_the_same_settings_go_on_and_others_are_refused(output, finished):
    output.open(SETTINGS)
    output.partial.append(RECORDS)
    if finished:
        output.finish(REQUESTS)
    output.open(SETTINGS)
    for other in (SETTINGS | {"seed": 4}, {"model": "m", "stop": []}):
        now = other.get("seed")
        sentence = f"output={output.path}: was begun with seed=3, not {now}; go on"
        with pytest.raises(InputError, match=re.escape(sentence)):
            output.open(other)
    assert json.loads(output.settings.read_text()) == SETTINGS


def test_settings_alone_bind_nobody(output):
    output.open(SETTINGS)
    output.open(SETTINGS | {"seed": 4})
    assert json.loads(output.settings.read_text())["seed"] == 4


def test_a_file_that_is_not_ours_is_left_alone(output):
    output.path.parent.mkdir()
    output.path.write_text("precious")
    with pytest.raises(InputError, match=r"out\.jsonl: the file exists, and out\.jso"):
        output.open(SETTINGS)
    assert output.path.read_text() == "precious"


def test_a_folder_is_no_output(output):
    output.path.mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder, must be a file"):
        output.open(SETTINGS)
