import sys

import numpy as np
import pytest

from isara_jax.errors import EnvironmentFailure
from isara_jax.retrieval import search
from isara_jax.retrieval.search import ExactIndex, ScannIndex, build_index

try:
    import scann  # noqa: F401 - only whether it is there
except ImportError:
    SCANN = False
else:
    SCANN = True
needs_scann = pytest.mark.skipif(not SCANN, reason="ScaNN has no wheel here")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(count, *, width=24, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def sorted_by_hand(vectors, queries, k):
    products = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.lexsort(
        (
            np.broadcast_to(np.arange(len(vectors)), products.shape),
            -products.astype(np.float32),
        )
    )[:, :k]
    return order, np.take_along_axis(products, order, axis=1)


METHODS = ["exact", pytest.param("scann", marks=needs_scann)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("points", "k"), [(1, 1), (2, 1), (7, 7), (64, 8), (500, 1), (500, 500)]
)
def test_neighbours_are_those_of_a_full_sort(method, points, k):
    vectors, queries = random_vectors(points), random_vectors(300, seed=1)
    found = build_index(vectors, method=method).nearest(queries, k=k)
    indices, similarities = sorted_by_hand(vectors, queries, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.similarities, similarities.astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("k", [1, 3, 30, 100])
def test_of_equals_the_lower_index_comes_first(method, k):
    vectors = np.repeat(random_vectors(2, width=384), 50, axis=0)
    queries = random_vectors(20, width=384, seed=1)
    found = build_index(vectors, method=method).nearest(queries, k=k)
    first_is_nearer = queries @ vectors[0] > queries @ vectors[50]
    near, far = np.arange(50), np.arange(50, 100)
    for row, nearer in zip(found.indices, first_is_nearer, strict=True):
        expected = np.concatenate([near, far] if nearer else [far, near])
        np.testing.assert_array_equal(row, expected[:k])


@needs_scann
def test_both_methods_agree_to_the_last_bit():
    vectors, queries = random_vectors(700, width=384), random_vectors(90, width=384)
    exact = build_index(vectors, method="exact").nearest(queries, k=8)
    scann_s = build_index(vectors, method="scann").nearest(queries, k=8)
    np.testing.assert_array_equal(exact.indices, scann_s.indices)
    np.testing.assert_array_equal(exact.similarities, scann_s.similarities)


@pytest.fixture(scope="module")
def clustered():
    chooser = np.random.default_rng(3)
    centres = chooser.normal(size=(400, 32))
    points = centres[chooser.integers(0, 400, 20_500)]
    points = unit(points + 0.5 * chooser.normal(size=points.shape))
    queries = centres[chooser.integers(0, 400, 100)]
    return points, unit(queries + 0.5 * chooser.normal(size=queries.shape))


@needs_scann
def test_tree_search_finds_nearly_all(clustered):
    vectors, queries = clustered
    index = build_index(vectors, method="scann")
    found = index.nearest(queries, k=10)
    exact = build_index(vectors, method="exact").nearest(queries, k=10)
    shared = [
        len(set(a) & set(b)) for a, b in zip(found.indices, exact.indices, strict=True)
    ]
    assert np.mean(shared) / 10 > 0.97
    assert (np.diff(found.similarities, axis=1) <= 0).all()


@needs_scann
def test_padding_of_tree_search_is_replaced(clustered):
    vectors, queries = clustered
    index = build_index(vectors, method="scann")
    k = 6_000  # more than the leaves that are searched hold
    _, scores = index.searcher.search_batched(queries[:3], final_num_neighbors=k)
    assert np.isnan(scores).any()
    found = index.nearest(queries[:3], k=k)
    exact = build_index(vectors, method="exact").nearest(queries[:3], k=k)
    np.testing.assert_array_equal(found.indices, exact.indices)
    assert all(len(set(row)) == k for row in found.indices)


class PaddingSearcher:
    """Finds half of what is asked for, and pads as ScaNN does."""

    def search_batched(
        self, queries, *, final_num_neighbors, pre_reorder_num_neighbors
    ):
        shape = (len(queries), final_num_neighbors)
        scores = np.full(shape, np.nan, np.float32)
        scores[:, : final_num_neighbors // 2] = 0.5
        return np.zeros(shape, np.uint32), scores


def test_padding_is_never_taken_for_a_neighbour():
    vectors, queries = random_vectors(60), random_vectors(5, seed=1)
    exact = ExactIndex(vectors)
    found = ScannIndex(exact, PaddingSearcher()).nearest(queries, k=4)
    np.testing.assert_array_equal(found.indices, exact.nearest(queries, k=4).indices)


class LastFirstSearcher:
    """Of equally near vectors, finds those with the highest indices."""

    def __init__(self, vectors):
        self.vectors = vectors

    def search_batched(
        self, queries, *, final_num_neighbors, pre_reorder_num_neighbors
    ):
        products = queries @ self.vectors[::-1].T
        order = np.argsort(-products, axis=1, kind="stable")[:, :final_num_neighbors]
        found = (len(self.vectors) - 1 - order).astype(np.uint32)
        return found, np.take_along_axis(products, order, axis=1)


def test_a_tie_at_the_last_place_is_settled_by_index():
    vectors = np.repeat(random_vectors(1), 50, axis=0)
    index = ScannIndex(ExactIndex(vectors), LastFirstSearcher(vectors))
    found = index.nearest(random_vectors(2, seed=1), k=3)
    np.testing.assert_array_equal(found.indices, [[0, 1, 2]] * 2)


@pytest.mark.parametrize("method", METHODS)
def test_no_query_gives_no_row(method):
    index = build_index(random_vectors(9), method=method)
    found = index.nearest(np.zeros((0, 24), np.float32), k=2)
    assert found.indices.shape == found.similarities.shape == (0, 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (random_vectors(2), 0, "k=0: must be 1 to 9"),
        (random_vectors(2), 10, "k=10: must be 1 to 9"),
        (random_vectors(2, width=23), 1, "queries: 23 wide, .* 24 wide"),
        (2 * random_vectors(2), 1, "queries: row 0 has the length 2"),
    ],
)
def test_queries_refused(method, queries, k, message):
    index = build_index(random_vectors(9), method=method)
    with pytest.raises(ValueError, match=message):
        index.nearest(queries, k=k)


def test_pools_refused():
    with pytest.raises(ValueError, match="the pool is empty"):
        build_index(np.zeros((0, 4), np.float32), method="exact")
    vectors = random_vectors(3)
    vectors[1] = np.nan
    with pytest.raises(ValueError, match="vectors: row 1 has the length nan"):
        build_index(vectors, method="exact")


@needs_scann
def test_auto_is_scann_where_it_is_installed():
    assert isinstance(build_index(random_vectors(9), method="auto"), ScannIndex)


def test_without_scann(monkeypatch):
    monkeypatch.setitem(sys.modules, "scann", None)
    assert isinstance(build_index(random_vectors(9), method="auto"), ExactIndex)
    with pytest.raises(EnvironmentFailure, match="ScaNN cannot be imported here"):
        build_index(random_vectors(9), method="scann")


def test_blocks_of_queries_do_not_show(monkeypatch):
    vectors, queries = random_vectors(40), random_vectors(11, seed=1)
    whole = ExactIndex(vectors).nearest(queries, k=5)
    monkeypatch.setattr(search, "QUERY_BLOCK", 4)
    blocks = ExactIndex(vectors).nearest(queries, k=5)
    np.testing.assert_array_equal(whole.indices, blocks.indices)
