"""Sides with the same model, which take turns: what else the machine does hits all."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.generation.comparison import OURS, Comparison
from benchmarks.generation.drafting import drafting_workloads, read_run
from benchmarks.generation.workloads import (
    NotMeasured,
    Runner,
    Workload,
    make_workload,
    value_of,
)
from benchmarks.peers.engine import EngineSide
from benchmarks.peers.llama_cpp_peer import LlamaCppPeer
from isara_jax.models.checkpoints import load_model, open_model
from isara_jax.runtime import locate, make_mesh


class SideBySide:
    """A model on every side; `run` is the flagfile of the run that is drafted."""

    def __init__(self, model: str, *, slots: int, peers: Sequence[str], run: str):
        self.source, self.run = open_model(locate(model)), run
        self.ours = EngineSide(
            load_model(self.source, dtype="float32", mesh=make_mesh(data=1, model=1)),
            slots=slots,
        )
        self.absent: list[str] = []
        self.peers = [
            peer
            for name, load in _loaders(self.source.path, slots).items()
            if name in peers and (peer := self._loaded(load)) is not None
        ]

    def compare(self, name: str, *, repeats: int, shrink: int) -> Comparison:
        """Measures a workload, or several as one, in turns."""
        workloads = self._workloads(name, shrink)
        comparison = Comparison(
            workload=name, measure=workloads[0].measure, left_out=list(self.absent)
        )
        runners: dict[str, Runner] = {}
        for peer in self.peers:
            try:
                runners |= peer.runners(workloads[0])
            except NotMeasured as reason:
                comparison.left_out.append(str(reason))
        for workload in workloads:
            self.ours.run(workload)
        self.ours.shares()
        for _ in range(repeats):
            value = sum(
                value_of(workload, self.ours.run(workload)) for workload in workloads
            )
            comparison.add(OURS, value, shares=self.ours.shares())
            for side, run in runners.items():
                comparison.add(
                    side,
                    sum(value_of(workload, run(workload)) for workload in workloads),
                )
        return comparison

    def _workloads(self, name: str, shrink: int) -> list[Workload]:
        if name != "drafting":
            vocabulary = self.ours.model.config.vocab_size
            return [make_workload(name, vocabulary=vocabulary, shrink=shrink)]
        config = read_run(self.run, shrink=shrink)
        return drafting_workloads(config, self.ours.model, source=self.source)

    def _loaded(self, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except NotMeasured as reason:
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
