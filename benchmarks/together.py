"""Sides with the same model, which take turns: what else the machine does hits all."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.comparison import OURS, Comparison
from benchmarks.drafting import drafting_works, read_run
from benchmarks.peers.engine import EngineSide
from benchmarks.peers.llama_cpp_peer import LlamaCppPeer
from benchmarks.works import LeftOut, Way, Work, make_work, value_of
from isara_jax.models.checkpoints import load_model
from isara_jax.runtime import locate, make_mesh


class Table:
    """A model on every side; `run` is the flagfile of the run that is drafted."""

    def __init__(self, model: str, *, slots: int, peers: Sequence[str], run: str):
        self.source, self.run = locate(model), run
        self.ours = EngineSide(
            load_model(self.source, dtype="float32", mesh=make_mesh(data=1, model=1)),
            slots=slots,
        )
        self.absent: list[str] = []
        self.peers = [
            peer
            for name, load in _loaders(self.source, slots).items()
            if name in peers and (peer := self._loaded(load)) is not None
        ]

    def compare(self, name: str, *, repeats: int, shrink: int) -> Comparison:
        """Measures a work, or several as one, in turns."""
        works = self._works(name, shrink)
        comparison = Comparison(
            work=name, measure=works[0].measure, left_out=list(self.absent)
        )
        ways: dict[str, Way] = {}
        for peer in self.peers:
            try:
                ways |= peer.ways(works[0])
            except LeftOut as reason:
                comparison.left_out.append(str(reason))
        for work in works:
            self.ours.run(work)
        self.ours.shares()
        for _ in range(repeats):
            value = sum(value_of(work, self.ours.run(work)) for work in works)
            comparison.add(OURS, value, shares=self.ours.shares())
            for side, way in ways.items():
                comparison.add(side, sum(value_of(work, way(work)) for work in works))
        return comparison

    def _works(self, name: str, shrink: int) -> list[Work]:
        if name != "drafting":
            vocabulary = self.ours.model.config.vocab_size
            return [make_work(name, vocabulary=vocabulary, shrink=shrink)]
        config = read_run(self.run, shrink=shrink)
        return drafting_works(config, self.ours.model, source=self.source)

    def _loaded(self, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except LeftOut as reason:
            self.absent.append(str(reason))
            return None


def _loaders(source: Path, slots: int) -> dict[str, Callable[[], Any]]:
    return {
        "transformers": partial(_transformers, source),
        "llama_cpp": partial(LlamaCppPeer, source, slots=slots),
    }


def _transformers(source: Path) -> Any:
    # Late: without this peer there need be no torch.
    from benchmarks.peers.transformers_peer import load

    return load(source)
