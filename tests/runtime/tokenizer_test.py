import json

import pytest
import transformers
from changes import change_json
from llama_files import (
    VOCABULARY,
    gguf_metadata,
    gguf_tensors,
    write_gguf,
    write_llama,
    write_tokenizer,
)
from pretrained import SMOLLM2, needs_smollm2

from isara_jax.errors import InputError
from isara_jax.runtime.gguf_file import read_gguf
from isara_jax.runtime.sources import locate
from isara_jax.runtime.tokenizer import load_tokenizer


@pytest.fixture
def folder(tmp_path):
    write_tokenizer(tmp_path)
    return tmp_path


def test_text_goes_to_ids_and_back(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("the cat sat")
    assert ids == [VOCABULARY.index(word) for word in ("the", "cat", "sat")]
    assert tokenizer.decode(ids) == "the cat sat"


def test_nothing_is_added_and_special_tokens_are_left_out(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("") == []
    ids = tokenizer.encode("<s> the cat </s>")
    assert ids[0] == 1 and ids[-1] == 2, "special tokens in a text count as such"
    assert tokenizer.decode(ids) == "the cat"
    assert tokenizer.decode(tuple(ids)) == "the cat"


def test_the_end_of_text_is_the_tokenizer_s(folder):
    assert load_tokenizer(folder).eos == (2,)


@pytest.mark.parametrize(
    ("named", "eos"),
    [(5, (2, 5)), ([2, 5], (2, 5)), ([7, 5], (2, 7, 5)), (2, (2,)), (None, (2,))],
)
def test_the_model_may_name_more_ends_of_text(folder, named, eos):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    assert load_tokenizer(folder).eos == eos


@pytest.mark.parametrize(
    ("text", "message"), [("{", "damaged, not JSON"), ("[]", "expected a JSON object")]
)
def test_damaged_generation_config(folder, text, message):
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=rf"generation_config\.json: {message}"):
        load_tokenizer(folder)


def test_no_begin_where_the_tokenizer_adds_none(folder):
    assert load_tokenizer(folder).bos == ()


def test_the_begin_that_the_tokenizer_adds(folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(content))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.bos == (1,)
    assert tokenizer.encode("the") == [VOCABULARY.index("the")], "never added to a text"


TURNS = [{"role": "user", "content": "the cat ?"}]


def test_the_chat_format_is_the_model_s(folder):
    change_json(
        folder / "tokenizer_config.json",
        chat_template="{% for m in messages %}[{{ m.role }}] {{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %} [assistant]{% endif %}",
    )
    tokenizer = load_tokenizer(folder)
    assert (
        tokenizer.render_chat(TURNS, add_generation_prompt=False) == "[user] the cat ?"
    )
    assert tokenizer.render_chat(TURNS, add_generation_prompt=True).endswith(
        "? [assistant]"
    )


def test_no_chat_format(folder):
    with pytest.raises(InputError, match="template=chat: the tokenizer has no chat"):
        load_tokenizer(folder).render_chat(TURNS, add_generation_prompt=True)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no system turn') }}",
        "{% for",
    ],
)
def test_a_chat_format_that_fails_or_leaves_its_sandbox(folder, template):
    change_json(folder / "tokenizer_config.json", chat_template=template)
    with pytest.raises(InputError, match="template=chat: the model's chat format"):
        load_tokenizer(folder).render_chat(TURNS, add_generation_prompt=True)


def test_what_is_saved_is_the_same_tokenizer(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    text = "who is it that ran far away ?"
    assert again.encode(text) == tokenizer.encode(text)
    assert (again.eos, again.bos) == (tokenizer.eos, tokenizer.bos)


def test_no_tokenizer(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"no tokenizer in the folder \(tokenizer.json"
    ):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"model": 3}', "\x00" * 40, '{"version": "1.0"}']
)
def test_damaged_tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match="the tokenizer does not load"):
        load_tokenizer(folder)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_tokenizer_config(folder, text):
    (folder / "tokenizer_config.json").write_text(text)
    with pytest.raises(InputError, match="the tokenizer does not load"):
        load_tokenizer(folder)


def test_code_of_the_folder_is_not_run(folder):
    (folder / "evil.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w')\nclass Evil: pass\n"
    )
    change_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "evil.Evil"]},
        tokenizer_class="Evil",
    )
    try:
        load_tokenizer(folder)
    except InputError as error:
        message = str(error)
    else:
        message = ""
    assert not (folder / "ran").exists()
    assert "Traceback" not in message


def test_no_end_of_text(folder):
    change_json(folder / "tokenizer_config.json", eos_token=...)
    with pytest.raises(InputError, match="the tokenizer names no end-of-text token"):
        load_tokenizer(folder)


def test_a_gguf_file_without_a_tokenizer(tmp_path):
    model = write_llama(tmp_path / "llama")
    metadata = gguf_metadata(model)
    del metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.model"]
    path = write_gguf(tmp_path / "m.gguf", metadata, gguf_tensors(model))
    with pytest.raises(InputError, match=r"m\.gguf: the tokenizer does not load"):
        load_tokenizer(read_gguf(path))


@needs_smollm2
def test_a_gguf_file_s_tokenizer():
    tokenizer = load_tokenizer(read_gguf(locate(SMOLLM2)))
    text = "Bats see quite well; 'é' and 数 too.\n\n  Twice."
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos == (2,) and tokenizer.bos == ()
    assert tokenizer.encode("<|im_end|>") == [2]
    chat = tokenizer.render_chat(TURNS, add_generation_prompt=True)
    assert chat.endswith(
        "<|im_start|>user\nthe cat ?<|im_end|>\n<|im_start|>assistant\n"
    )
    theirs = transformers.AutoTokenizer.from_pretrained(
        locate(SMOLLM2).parent, gguf_file=locate(SMOLLM2).name
    )
    assert tokenizer.encode(text) == theirs(text).input_ids
