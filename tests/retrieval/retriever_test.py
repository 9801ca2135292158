"""A pool is embedded and indexed once, however often it is searched."""

import numpy as np
import pytest

from isara_jax.examples import Example, Pool
from isara_jax.retrieval import retriever as module
from isara_jax.retrieval.embed import Embedder
from isara_jax.retrieval.retriever import Retriever


class Dial(Embedder):
    """Turns a text, an angle in degrees, into the unit vector there; counts texts."""

    def __init__(self):
        object.__setattr__(self, "embedded", [])

    def embed(self, texts):
        self.embedded.extend(texts)
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def make_pool(round_index, angles):
    return Pool(
        round_index=round_index,
        examples=tuple(
            Example(question=str(angle), answer="so", origin=f"{round_index}-{angle}")
            for angle in angles
        ),
    )


SEEDS, KEPT = make_pool(0, [0, 90, 180]), make_pool(1, [45, 135])


@pytest.fixture
def built(monkeypatch):
    """Returns the sizes of the indices that are built."""
    sizes, build = [], module.build_index

    def count(vectors, *, method):
        sizes.append(len(vectors))
        return build(vectors, method=method)

    monkeypatch.setattr(module, "build_index", count)
    return sizes


def test_a_pool_is_embedded_and_indexed_once(built):
    dial = Dial()
    retriever = Retriever(dial, method="exact")
    queries = retriever.embed(["80", "10"])
    # As two rounds do it: the demonstrations of each pool, and the nearest seed.
    for pools in ([SEEDS], [make_pool(0, [0, 90, 180]), KEPT]):
        for pool in pools:
            retriever.nearest(pool, queries, count=2)
        retriever.nearest(pools[0], queries, count=1)
    assert dial.embedded == ["80", "10", "0", "90", "180", "45", "135"]
    assert built == [3, 2]


def test_a_kept_index_finds_what_a_new_one_does():
    kept = Retriever(Dial(), method="exact")
    queries = kept.embed(["80", "10"])
    for pool in (SEEDS, KEPT, SEEDS):
        found = kept.nearest(pool, queries, count=2)
        expected = Retriever(Dial(), method="exact").nearest(pool, queries, count=2)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.similarities, expected.similarities)


def test_a_smaller_pool_gives_all_it_has():
    retriever = Retriever(Dial(), method="exact")
    found = retriever.nearest(KEPT, retriever.embed(["50"]), count=9)
    assert found.indices.tolist() == [[0, 1]]
