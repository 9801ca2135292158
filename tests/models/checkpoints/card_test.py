"""A card is YAML whatever stands in it, and claims no licence of its own."""

import pytest
import yaml

from isara_jax.models.checkpoints.card import (
    front_matter,
    licence_of_card,
    licence_text,
    write_card,
)

HOSTILE = 'a": b\n---\n# "'


def written(folder, **changes):
    facts = {
        "title": "ours",
        "base": "org/theirs",
        "license": "apache-2.0",
        "found": {"float32", "bfloat16"},
        "dtype": "float16",
    }
    write_card(folder, **(facts | changes))
    _, head, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_converted_model_says_whence_it_is(tmp_path):
    head, body = written(tmp_path)
    assert head["license"] == "apache-2.0"
    assert "- **Base**: `org/theirs`, licence `apache-2.0`" in body
    assert "- **Precision**: float16, from bfloat16, float32 in the source" in body
    assert "**Weights**: safetensors files, under" in body


def test_an_orbax_folder_says_so(tmp_path):
    (tmp_path / "orbax").mkdir()
    assert "**Weights**: `orbax/`, a flat tree by Orbax, under" in written(tmp_path)[1]


def test_no_licence(tmp_path):
    head, body = written(tmp_path, license="")
    assert head["license"] == "other"
    assert "licence not stated in its files" in body


@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], {"a": HOSTILE}, "é\u2028"])
def test_the_head_is_yaml_whatever_it_says(value):
    head = front_matter({"field": value})
    assert head.startswith("---\n") and head.endswith("\n---")
    assert yaml.safe_load(head.removeprefix("---\n").removesuffix("---")) == {
        "field": value
    }


def test_the_words_of_a_licence():
    assert licence_text("mit") == "`mit`"
    assert licence_text("") == "not stated in its files"


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# M", "apache-2.0"),
        ("---\ntags:\n- a\nlicense: 'mit'\n---\n", "mit"),
        ('---\nlicense:   "llama3.2"\n---\n', "llama3.2"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("---\nlicense:\n- mit\n- gpl\n---\n", "mit"),
        ("---\nlicense: [mit, gpl]\n---\n", "mit"),
        ("---\ntags: x\n---\nlicense: mit\n", ""),
        ("---\nlicense_name: own\n---\n", ""),
        ("---\nlicense:\n---\n", ""),
        ("# M\nlicense: mit\n", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_licence_of_a_model_card(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card.encode())
    assert licence_of_card(tmp_path / "README.md") == licence
