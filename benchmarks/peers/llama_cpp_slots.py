"""llama.cpp's low-level interface: a GGUF file decoded in slots, greedily, on CPU.

Every slot has a cache of its own, as in llama.cpp's server. Prompts that wait go into
the free slots together, then every slot decodes a token; a text that is done frees its
slot. A shared prefix is run once and copied to the slots.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np

from benchmarks.generation.workloads import Timing, Workload

# Tokens that one call takes, llama.cpp's own default; it computes 512 at once.
BATCH = 2048


@dataclass(frozen=True)
class Entry:
    """A token for a slot; with `wanted` the next one is asked for."""

    token: int
    position: int
    slot: int
    wanted: bool


class LlamaCpp:
    """A GGUF file in llama.cpp, with so many threads."""

    def __init__(self, path: Path, *, slots: int, threads: int):
        # Its log would drown the figures.
        self.log = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.log, None)
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            os.fsencode(path), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError(f"{path}: llama.cpp cannot read it")
        self.slots, self.threads = slots, threads

    def write(self, workload: Workload) -> tuple[Timing, list[list[int]]]:
        """Does a workload; returns what was written too."""
        slots = min(self.slots, len(workload.prompts))
        room = max(
            len(prompt) + new
            for prompt, new in zip(workload.prompts, workload.new_tokens, strict=True)
        )
        with self._context(slots=slots, room=room) as context:
            return _Run(context, workload, slots=slots).finish()

    @contextmanager
    def _context(self, *, slots: int, room: int) -> "Iterator[_Context]":
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_seq_max = slots
        # An equal share of the positions a slot, as many as the longest text needs.
        parameters.n_ctx = slots * -(-room // 256) * 256
        parameters.kv_unified = False
        parameters.n_batch = BATCH
        parameters.n_threads = parameters.n_threads_batch = self.threads
        pointer = llama_cpp.llama_init_from_model(self.model, parameters)
        if not pointer:
            raise RuntimeError(f"no memory for {slots} slots of {room} tokens")
        words = llama_cpp.llama_model_get_vocab(self.model)
        vocabulary = llama_cpp.llama_vocab_n_tokens(words)
        context = _Context(pointer, vocabulary=vocabulary)
        try:
            yield context
        finally:
            llama_cpp.llama_batch_free(context.batch)
            llama_cpp.llama_free(pointer)


class _Run:
    """One workload going through the slots."""

    def __init__(self, context: "_Context", workload: Workload, *, slots: int):
        self.context, self.workload = context, workload
        self.free = list(range(slots))
        self.slots = slots
        self.held: dict[int, int] = {}
        self.written: list[list[int]] = [[] for _ in workload.prompts]
        self.prefill_seconds = self.decode_seconds = 0.0

    def finish(self) -> tuple[Timing, list[list[int]]]:
        begun = time.perf_counter()
        self._share()
        self.prefill_seconds += time.perf_counter() - begun
        waiting = deque(range(len(self.workload.prompts)))
        while waiting or self.held:
            start = time.perf_counter()
            self._fill(waiting)
            filled = time.perf_counter()
            self._decode()
            self.prefill_seconds += filled - start
            self.decode_seconds += time.perf_counter() - filled
        timing = Timing(
            seconds=time.perf_counter() - begun,
            prefill_seconds=self.prefill_seconds,
            decode_seconds=self.decode_seconds,
            decoded_tokens=sum(len(tokens) - 1 for tokens in self.written),
        )
        return timing, self.written

    def _share(self) -> None:
        beginning = self.workload.prompts[0][: self.workload.shared]
        if not beginning:
            return
        self.context.advance(_entries(beginning, start=0, slot=0, wanted=False))
        for slot in range(1, self.slots):
            self.context.copy(0, slot)

    def _fill(self, waiting: deque[int]) -> None:
        entries = []
        while waiting and self.free:
            number, slot = waiting.popleft(), self.free.pop(0)
            self.held[slot] = number
            shared = self.workload.shared
            self.context.forget(slot, beyond=shared)
            own = self.workload.prompts[number][shared:]
            entries += _entries(own, start=shared, slot=slot, wanted=True)
        self._take(self.context.advance(entries))

    def _decode(self) -> None:
        entries = []
        for slot, number in self.held.items():
            written = self.written[number]
            position = len(self.workload.prompts[number]) + len(written) - 1
            entries.append(Entry(written[-1], position, slot, wanted=True))
        self._take(self.context.advance(entries))

    def _take(self, following: dict[int, int]) -> None:
        for slot, token in following.items():
            number = self.held[slot]
            self.written[number].append(token)
            if len(self.written[number]) == self.workload.new_tokens[number]:
                del self.held[slot]
                self.free.append(slot)


def _entries(
    tokens: Sequence[int], *, start: int, slot: int, wanted: bool
) -> list[Entry]:
    last = len(tokens) - 1
    return [
        Entry(token, start + place, slot, wanted and place == last)
        for place, token in enumerate(tokens)
    ]


class _Context:
    """llama.cpp's context: the slots' caches, and a batch to fill."""

    def __init__(self, pointer, *, vocabulary: int):
        self.pointer, self.vocabulary = pointer, vocabulary
        self.memory = llama_cpp.llama_get_memory(pointer)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

    def advance(self, entries: Sequence[Entry]) -> dict[int, int]:
        """Runs the tokens; returns the best next one of the slots that want it."""
        following = {}
        for begin in range(0, len(entries), BATCH):
            part = entries[begin : begin + BATCH]
            self._run(part)
            for place, entry in enumerate(part):
                if entry.wanted:
                    following[entry.slot] = self._best(place)
        return following

    def _run(self, entries: Sequence[Entry]) -> None:
        batch = self.batch
        batch.n_tokens = len(entries)
        for place, entry in enumerate(entries):
            batch.token[place] = entry.token
            batch.pos[place] = entry.position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = entry.slot
            batch.logits[place] = entry.wanted
        code = llama_cpp.llama_decode(self.pointer, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")

    def _best(self, place: int) -> int:
        logits = llama_cpp.llama_get_logits_ith(self.pointer, place)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def copy(self, source: int, target: int) -> None:
        llama_cpp.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def forget(self, slot: int, *, beyond: int) -> None:
        llama_cpp.llama_memory_seq_rm(self.memory, slot, beyond, -1)
