"""Finds the examples of a pool whose questions are nearest to a text."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from isara_jax.examples import Pool
from isara_jax.retrieval.config import RetrievalConfig
from isara_jax.retrieval.embed import Embedder, load_embedder
from isara_jax.retrieval.search import Index, IndexMethod, Neighbours, build_index


class Retriever:
    """Searches pools by the embeddings of their questions alone.

    A pool does not change, so it is embedded and its index built once, when it is first
    searched. See docs/method.md, "The algorithm".
    """

    def __init__(self, embedder: Embedder, *, method: IndexMethod):
        self._embedder = embedder
        self._method = method
        self._indices: dict[Pool, Index] = {}

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts D"]:
        """Returns a unit vector for every text, to search pools with."""
        return self._embedder.embed(texts)

    def nearest(
        self, pool: Pool, queries: Float[np.ndarray, "queries D"], *, count: int
    ) -> Neighbours:
        """Returns the `count` nearest examples of each query, fewer of a smaller pool.

        Raises:
          ValueError: the pool is empty.
        """
        if pool not in self._indices:
            vectors = self.embed([example.question for example in pool.examples])
            self._indices[pool] = build_index(vectors, method=self._method)
        return self._indices[pool].nearest(queries, k=min(count, len(pool)))


def load_retriever(config: RetrievalConfig) -> Retriever:
    """Loads the encoder that the settings name.

    Raises:
      InputError, EnvironmentFailure: as `load_embedder`.
    """
    return Retriever(load_embedder(config.encoder), method=config.retrieval)
