"""Continues prompts in slots: where one ends, the next takes its place.

A sample is fixed by the model, its prompt and its own key: neither the slot it is in
nor what runs beside it decides anything (DESIGN 5). The host looks at the slots once
every `STEPS_BETWEEN_CHECKS` tokens; what was decoded past a stop string is dropped.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from isara_jax.engine.batches import Prompt, plan
from isara_jax.engine.beam import beam_batch
from isara_jax.engine.continuous import decode, empty_state, insert, share
from isara_jax.engine.decoding import Decoding
from isara_jax.engine.endings import Completion, Ending, completion_of, has_stop
from isara_jax.engine.figures import Figures
from isara_jax.engine.path import Cuts, Path, new_path
from isara_jax.engine.schedule import Group, groups
from isara_jax.engine.stack import Stack, stacked
from isara_jax.models.decoder import Decoder
from isara_jax.runtime.mesh import Mesh, place_batch

STEPS_BETWEEN_CHECKS = 8


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A model ready to write texts of up to `context` tokens, in so many slots.

    `check` may raise to stop it between two stretches of decoding.

    What the engine has computed of prompts it keeps no longer than a call; a model
    whose weights have changed needs a new engine.
    """

    model: Decoder
    mesh: Mesh
    slots: int
    context: int
    check: Callable[[], None]

    @cached_property
    def stack(self) -> Stack:
        """The model's layers, as they are run."""
        return stacked(self.model)

    def continue_all(
        self,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding,
        ending: Ending,
        key: Key[Array, ""],
        done: Collection[str] = (),
        figures: Figures | None = None,
    ) -> Iterator[list[Completion]]:
        """Yields completions as they end; `key` is that of the round's step.

        Prompts whose ids are `done` are left out, and the others written in the
        programs in which they would have been written with them. What is counted is
        added to the `figures`.

        Raises:
          InputError: a prompt and its continuation do not fit the model's context.
        """
        figures = Figures() if figures is None else figures
        if decoding.beams > 1:
            yield from self._beams(
                prompts, decoding=decoding, ending=ending, key=key, done=done
            )
            return
        planned = groups(
            prompts,
            slots=self.slots,
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=decoding.max_new_tokens,
            context=self.context,
        )
        path = None
        for group in planned:
            waiting = deque(
                (prompt, cuts)
                for prompt, cuts in zip(group.prompts, group.cuts, strict=True)
                if prompt.id not in done
            )
            if not waiting:
                continue
            if path is None:
                path = new_path(self.stack, longest=_longest(planned), mesh=self.mesh)
            run = _Run(
                self,
                group,
                path=path,
                decoding=decoding,
                ending=ending,
                key=key,
                figures=figures,
            )
            yield from run.completions(waiting)

    def _beams(
        self,
        prompts: Sequence[Prompt],
        *,
        decoding: Decoding,
        ending: Ending,
        key: Key[Array, ""],
        done: Collection[str],
    ) -> Iterator[list[Completion]]:
        """Yields batch by batch; a beam takes a slot."""
        batches = plan(
            prompts,
            slots=self.slots // decoding.beams,
            row_multiple=self.mesh.shape["data"],
            max_new_tokens=decoding.max_new_tokens,
            context=self.context,
        )
        for batch in batches:
            if all(prompt.id in done for prompt in batch.prompts):
                continue
            completions = beam_batch(
                self.model,
                batch,
                decoding=decoding,
                ending=ending,
                key=key,
                mesh=self.mesh,
                check=self.check,
            )
            yield [c for c in completions if c.id not in done]


def _longest(planned: Sequence[Group]) -> int:
    """The positions that the path needs: a slot takes all of its room from there."""
    return max(
        max(group.longest, group.shared + group.capacity, group.shared_room)
        for group in planned
    )


class _Run:
    """One group's way through the slots."""

    def __init__(
        self,
        engine: Engine,
        group: Group,
        *,
        path: Path,
        decoding: Decoding,
        ending: Ending,
        key: Key[Array, ""],
        figures: Figures,
    ):
        self.engine, self.group, self.path = engine, group, path
        self.decoding, self.ending, self.key = decoding, ending, key
        self.figures = figures
        self.held: list[Prompt | None] = [None] * group.rows
        self.generated = np.zeros(group.rows, np.int64)
        self.shares = False
        self.state = empty_state(
            engine.stack,
            rows=group.rows,
            capacity=group.capacity,
            shared=group.shared_room,
            new_tokens=decoding.max_new_tokens,
            mesh=engine.mesh,
        )

    def completions(
        self, waiting: deque[tuple[Prompt, Cuts]]
    ) -> Iterator[list[Completion]]:
        """Yields what becomes of the prompts, what ended in one stretch together."""
        while waiting or any(self.held):
            self._fill(waiting)
            self.engine.check()
            self._decode()
            if ended := self._ended():
                yield ended

    def _fill(self, waiting: deque[tuple[Prompt, Cuts]]) -> None:
        for row, held in enumerate(self.held):
            if held is None and waiting:
                self.engine.check()
                prompt, cuts = waiting.popleft()
                self.held[row], self.generated[row] = prompt, 0
                with self.figures.prefilling(self.path):
                    self.path.run(prompt.tokens, cuts)
                    self._share()
                    self._insert(prompt, row)

    def _share(self) -> None:
        """Takes what all prompts begin with from the first of them that is run."""
        if self.group.shared and not self.shares:
            self.shares = True
            count = jnp.int32(self.group.shared)
            self.state = share(
                self.state, self.path.cache, count, mesh=self.engine.mesh
            )

    def _insert(self, prompt: Prompt, row: int) -> None:
        tokens = np.zeros(self.state.texts.history.shape[1], np.int32)
        tokens[: len(prompt.tokens)] = prompt.tokens
        self.state = insert(
            self.state,
            self.path.cache,
            self.path.logits,
            row=jnp.int32(row),
            tokens=jnp.asarray(tokens),
            length=jnp.int32(len(prompt.tokens)),
            limit=jnp.int32(prompt.limit(self.decoding.max_new_tokens)),
            key=jax.random.fold_in(self.key, prompt.number),
            mesh=self.engine.mesh,
        )

    def _decode(self) -> None:
        with self.figures.decoding():
            self.state = decode(
                self.engine.stack,
                self.state,
                self.decoding.strengths,
                eos=jnp.asarray(self.ending.eos, jnp.int32),
                form=self.decoding.form,
                steps=STEPS_BETWEEN_CHECKS,
                mesh=self.engine.mesh,
            )
            generated = np.asarray(self.state.texts.generated, np.int64)
        occupied = np.array([prompt is not None for prompt in self.held])
        self.figures.count_new((generated - self.generated) * occupied)
        self.generated = generated

    def _ended(self) -> list[Completion]:
        """Empties the slots whose text has ended."""
        done = np.array(self.state.done)
        history = np.asarray(self.state.texts.history)
        ended = []
        for row, prompt in enumerate(self.held):
            if prompt is None:
                continue
            begin = len(prompt.tokens)
            text = history[row, begin : begin + self.generated[row]]
            if done[row] or has_stop(text, self.ending):
                ended.append((row, prompt, text))
        if not ended:
            return []
        scores = np.asarray(self.state.log_probabilities)
        for row, _, _ in ended:
            self.held[row], done[row] = None, True
        self.state = replace(self.state, done=place_batch(done, self.engine.mesh))
        return [
            completion_of(prompt, text, scores=scores[row], ending=self.ending)
            for row, prompt, text in ended
        ]
