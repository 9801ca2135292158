"""Nearest-neighbour search in a pool of vectors, by ScaNN or exact.

All vectors have length 1, so the largest dot product is the largest cosine and the
smallest Euclidean distance, by which the paper sorts (docs/method.md, "The algorithm").

A backend only proposes candidates; `_ranked` sorts them by products summed in float64.
So equal vectors have equal similarities, and below SMALLEST_TREE points both backends
give the same neighbours to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt

from isara_jax.errors import EnvironmentFailure

# Below this, ScaNN's own advice is its brute force, which finds every neighbour.
SMALLEST_TREE = 20_000
# Candidates beyond k, to see whether the k-th neighbour leads the next ones clearly.
SPARE = 16
# Above the error of a float32 dot product of two unit vectors.
UNCERTAINTY = 1e-5
LENGTH_TOLERANCE = 1e-3
# Rows whose similarities to the whole pool are in memory at a time.
QUERY_BLOCK = 256


IndexMethod = Literal["auto", "scann", "exact"]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """For every query the indices of k vectors of the pool, nearest first.

    `similarities` are cosines, in float32.
    """

    indices: Int[np.ndarray, "queries k"]
    similarities: Float[np.ndarray, "queries k"]


@runtime_checkable
class Index(Protocol):
    """A pool of unit vectors that can be searched."""

    def nearest(self, queries: Float[np.ndarray, "queries D"], *, k: int) -> Neighbours:
        """Returns the k vectors with the largest cosine; of equals, the lower index.

        The caller clips k to the size of the pool.

        Raises:
          ValueError: k is below 1 or above the size of the pool, or a query is no unit
            vector of the pool's width.
        """
        ...


def build_index(
    vectors: Float[np.ndarray, "points D"], *, method: IndexMethod
) -> Index:
    """Builds an index over a pool; `auto` is ScaNN where the platform has it.

    Raises:
      ValueError: the pool is empty, or a vector has not the length 1.
      EnvironmentFailure: `scann` is asked for and cannot be imported.
    """
    if not len(vectors):
        raise ValueError("vectors: the pool is empty, an index needs one or more")
    exact = ExactIndex(_unit_rows(vectors, name="vectors"))
    if method == "exact":
        return exact
    try:
        from scann import scann_ops_pybind  # no wheel for macOS and Windows
    except ImportError as error:
        if method == "auto":
            return exact
        raise EnvironmentFailure(
            f"ScaNN cannot be imported here ({error}); choose exact search, which "
            "gives the same neighbours"
        ) from None
    return ScannIndex(exact, _build_searcher(scann_ops_pybind, exact.vectors))


@dataclass(frozen=True)
class ExactIndex:
    """Compares a query with every vector."""

    vectors: Float[np.ndarray, "points D"]

    def nearest(self, queries: Float[np.ndarray, "queries D"], *, k: int) -> Neighbours:
        """As `Index.nearest`."""
        queries = _checked_queries(queries, self.vectors, k=k)
        rows = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = queries[start : start + QUERY_BLOCK]
            for query, rough in zip(block, block @ self.vectors.T, strict=True):
                threshold = np.partition(rough, -k)[-k] - UNCERTAINTY
                candidates = np.flatnonzero(rough >= threshold)
                rows.append(_ranked(self.vectors, candidates, query=query))
        return _first(rows, k=k)


@dataclass(frozen=True)
class ScannIndex:
    """Searches with ScaNN, and exactly where its result is not certain."""

    exact: ExactIndex
    searcher: Any

    def nearest(self, queries: Float[np.ndarray, "queries D"], *, k: int) -> Neighbours:
        """As `Index.nearest`, but a tree (SMALLEST_TREE) may miss a neighbour."""
        vectors = self.exact.vectors
        queries = _checked_queries(queries, vectors, k=k)
        if not len(queries):  # which ScaNN refuses
            return _first([], k=k)
        wanted = min(k + SPARE, len(vectors))
        proposed, scores = self.searcher.search_batched(
            queries, final_num_neighbors=wanted, pre_reorder_num_neighbors=4 * wanted
        )
        rows = [
            self._ranked_or_exact(query, found, k=k, wanted=wanted)
            for query, found in zip(queries, _found(proposed, scores), strict=True)
        ]
        return _first(rows, k=k)

    def _ranked_or_exact(
        self,
        query: Float[np.ndarray, " D"],
        found: Int[np.ndarray, " candidates"],
        *,
        k: int,
        wanted: int,
    ) -> Neighbours:
        """Ranks what ScaNN found, if it is complete and the first k lead clearly."""
        if len(found) == wanted:
            ranked = _ranked(self.exact.vectors, found, query=query)
            lead = ranked.similarities[0, k - 1] - ranked.similarities[0, -1]
            if wanted == len(self.exact.vectors) or lead > UNCERTAINTY:
                return ranked
        return self.exact.nearest(query[None], k=k)


def _build_searcher(scann_ops_pybind: Any, vectors: Float[np.ndarray, "n D"]) -> Any:
    points = len(vectors)
    builder = scann_ops_pybind.builder(vectors, min(points, SPARE), "dot_product")
    if points < SMALLEST_TREE:
        return builder.score_brute_force().build()
    leaves = int(points**0.5)
    return (
        builder.tree(
            num_leaves=leaves,
            num_leaves_to_search=max(1, leaves // 6),
            training_sample_size=min(points, 250_000),
        )
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(10 * SPARE)
        .build()
    )


def _found(
    proposed: UInt[np.ndarray, "queries k"], scores: Float[np.ndarray, "queries k"]
) -> list[Int[np.ndarray, " candidates"]]:
    """Returns each query's candidates; ScaNN pads with index 0 and the score NaN."""
    return [
        np.sort(row[np.isfinite(score)]).astype(np.int64)
        for row, score in zip(proposed, scores, strict=True)
    ]


def _ranked(
    vectors: Float[np.ndarray, "points D"],
    candidates: Int[np.ndarray, " candidates"],
    *,
    query: Float[np.ndarray, " D"],
) -> Neighbours:
    """Sorts candidates, given in ascending order, by similarity, then by index."""
    products = vectors[candidates] * query.astype(np.float64)
    similarities = products.sum(axis=1).astype(np.float32)
    order = np.argsort(-similarities, kind="stable")
    return Neighbours(
        indices=candidates[order][None], similarities=similarities[order][None]
    )


def _first(rows: Sequence[Neighbours], *, k: int) -> Neighbours:
    """Stacks the first k neighbours of each query."""
    indices = np.zeros((len(rows), k), np.int64)
    similarities = np.zeros((len(rows), k), np.float32)
    for number, row in enumerate(rows):
        indices[number] = row.indices[0, :k]
        similarities[number] = row.similarities[0, :k]
    return Neighbours(indices=indices, similarities=similarities)


def _checked_queries(
    queries: Float[np.ndarray, "queries width"],
    vectors: Float[np.ndarray, "points D"],
    *,
    k: int,
) -> Float[np.ndarray, "queries D"]:
    if not 1 <= k <= len(vectors):
        raise ValueError(f"k={k}: must be 1 to {len(vectors)}, the size of the pool")
    if queries.shape[1] != vectors.shape[1]:
        raise ValueError(
            f"queries: {queries.shape[1]} wide, the pool's vectors are "
            f"{vectors.shape[1]} wide"
        )
    return _unit_rows(queries, name="queries")


def _unit_rows(
    rows: Float[np.ndarray, "rows D"], *, name: str
) -> Float[np.ndarray, "rows D"]:
    rows = np.ascontiguousarray(rows, np.float32)
    lengths = np.linalg.norm(rows, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"{name}: row {wrong[0]} has the length {lengths[wrong[0]]}, must be 1"
        )
    return rows
