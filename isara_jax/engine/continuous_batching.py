"""One group's way through the slots: fill, decode a stretch, take out what ended."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from isara_jax.engine.decode import (
    DecodeState,
    compacted_rows,
    decode,
    decode_compacted,
    empty_state,
    insert,
    rows_to_keep,
    share,
)
from isara_jax.engine.metrics import EngineMetrics, model_sizes
from isara_jax.engine.prefill import PrefixCache
from isara_jax.engine.request import Request
from isara_jax.engine.sampling import (
    Completion,
    SamplingParams,
    StopCriteria,
    completion_of,
    has_stop,
)
from isara_jax.engine.scheduler import Group, Planned
from isara_jax.runtime import Mesh, shard_batch

STEPS_BETWEEN_SYNCS = 8
# While prompts wait, a slot that has ended is idle until the next check.
STEPS_BETWEEN_SYNCS_WHILE_WAITING = 4


class ContinuousBatch:
    """One group's way through the slots."""

    state: DecodeState

    def __init__(
        self,
        group: Group,
        *,
        path: PrefixCache,
        mesh: Mesh,
        check: Callable[[], None],
        sampling_params: SamplingParams,
        stop_criteria: StopCriteria,
        key: Key[Array, ""],
        figures: EngineMetrics,
    ):
        self.group, self.path, self.mesh, self.check = group, path, mesh, check
        self.sampling_params, self.stop_criteria, self.key = (
            sampling_params,
            stop_criteria,
            key,
        )
        self.figures, self.sizes = figures, model_sizes(path.stack.model)
        self.held: list[Planned | None] = [None] * group.rows
        self.generated = np.zeros(group.rows, np.int64)
        self.prompt_lengths = np.zeros(group.rows, np.int64)
        self.shares = False

    def completions(self, waiting: deque[Planned]) -> Iterator[list[Completion]]:
        """Yields what becomes of the prompts, what ended in one stretch together."""
        self.state = empty_state(
            self.path.stack,
            rows=self.group.rows,
            capacity=self.group.capacity,
            shared=self.group.shared_room,
            new_tokens=self.sampling_params.max_new_tokens,
            mesh=self.mesh,
        )
        while waiting or any(self.held):
            self._fill(waiting)
            self.check()
            if waiting:
                self._decode(STEPS_BETWEEN_SYNCS_WHILE_WAITING)
            else:
                self._decode(STEPS_BETWEEN_SYNCS, kept=self._rows_to_keep())
            if ended := self._ended():
                yield ended

    def unfinished(self) -> list[Planned]:
        """Returns the prompts that are in a slot, in their order."""
        held = [planned for planned in self.held if planned is not None]
        return sorted(held, key=lambda planned: planned[0].sort_key)

    def _fill(self, waiting: deque[Planned]) -> None:
        for row, held in enumerate(self.held):
            if held is None and waiting:
                self.check()
                prompt, spans = waiting[0]
                self.held[row], self.generated[row] = waiting.popleft(), 0
                self.prompt_lengths[row] = len(prompt.tokens)
                with self.figures.time_prefill(self.path, self.sizes):
                    self.path.run(prompt.tokens, spans)
                    self._share()
                    self._insert(prompt, row)

    def _share(self) -> None:
        """Takes what all prompts begin with from the first of them that is run."""
        if self.group.shared and not self.shares:
            self.shares = True
            count = jnp.int32(self.group.shared)
            self.state = share(self.state, self.path.cache, count, mesh=self.mesh)

    def _insert(self, prompt: Request, row: int) -> None:
        tokens = np.zeros(self.state.texts.token_ids.shape[1], np.int32)
        tokens[: len(prompt.tokens)] = prompt.tokens
        self.state = insert(
            self.state,
            self.path.cache,
            self.path.logits,
            row=jnp.int32(row),
            tokens=jnp.asarray(tokens),
            length=jnp.int32(len(prompt.tokens)),
            limit=jnp.int32(prompt.limit(self.sampling_params.max_new_tokens)),
            key=jax.random.fold_in(self.key, prompt.number),
            mesh=self.mesh,
        )

    def _rows_to_keep(self) -> np.ndarray | None:
        """Returns fewer rows that hold all texts which are left, if that is enough."""
        held = np.array([held is not None for held in self.held])
        count = compacted_rows(self.state, self.mesh)
        if count is None or held.sum() > count:
            return None
        return rows_to_keep(held, count=count)

    def _decode(self, steps: int, *, kept: np.ndarray | None = None) -> None:
        """Decodes a stretch, and goes on in the kept rows only if that may be."""
        with self.figures.time_decode():
            stretch = partial(self._stretch, steps=steps)
            if kept is None:
                self.state = stretch(self.state)
            else:
                self.state, narrow = decode_compacted(
                    self.state,
                    kept,
                    decode=stretch,
                    program=(self.sampling_params.static, self.path.stack.model.config),
                    mesh=self.mesh,
                )
                if narrow:
                    self._keep(kept)
            generated = np.asarray(self.state.texts.generated, np.int64)
        occupied = np.array([held is not None for held in self.held])
        self.figures.count_new(
            (generated - self.generated) * occupied,
            lengths=self.generated + self.prompt_lengths,
            shared=self.group.shared,
            sizes=self.sizes,
        )
        self.generated = generated

    def _stretch(self, state: DecodeState, *, steps: int) -> DecodeState:
        return decode(
            self.path.stack,
            state,
            self.sampling_params.traced,
            eos=jnp.asarray(self.stop_criteria.eos, jnp.int32),
            static=self.sampling_params.static,
            steps=jnp.int32(steps),
            mesh=self.mesh,
        )

    def _keep(self, kept: np.ndarray) -> None:
        self.held = [self.held[row] for row in kept]
        self.generated = self.generated[kept]
        self.prompt_lengths = self.prompt_lengths[kept]

    def _ended(self) -> list[Completion]:
        """Empties the slots whose text has ended."""
        done = np.array(self.state.done)
        token_ids = np.asarray(self.state.texts.token_ids)
        ended = []
        for row, held in enumerate(self.held):
            if held is None:
                continue
            prompt, _ = held
            begin = len(prompt.tokens)
            text = token_ids[row, begin : begin + self.generated[row]]
            if done[row] or has_stop(text, self.stop_criteria):
                ended.append((row, prompt, text))
        if not ended:
            return []
        scores = np.asarray(self.state.log_probabilities)
        for row, _, _ in ended:
            self.held[row], done[row] = None, True
        self.state = replace(self.state, done=shard_batch(done, self.mesh))
        return [
            completion_of(
                prompt, text, scores=scores[row], stop_criteria=self.stop_criteria
            )
            for row, prompt, text in ended
        ]
