"""Rows of logits with their texts, under our decoding rules and transformers'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from isara_jax.engine.sampling.logits_processors import TokenBuffer
from isara_jax.engine.sampling.params import SamplingParams
from isara_jax.engine.sampling.sample import candidates

ROWS, SLOTS, VOCABULARY = 48, 24, 13
EOS = (3, 7)


def sampling_params(**rules):
    return SamplingParams(max_new_tokens=9, **{"top_k": 0} | rules)


@dataclasses.dataclass(frozen=True)
class State:
    """Rows of logits, and the prompts and continuations that they follow."""

    logits: np.ndarray
    token_ids: np.ndarray
    mask: np.ndarray
    lengths: np.ndarray
    generated: np.ndarray

    def text(self, row):
        end = self.lengths[row]
        return self.token_ids[row, :end][self.mask[row, :end] != 0]

    @property
    def texts(self):
        seen = np.zeros(self.logits.shape, bool)
        for row in range(len(seen)):
            seen[row, self.text(row)] = True
        return TokenBuffer(
            token_ids=jnp.asarray(self.token_ids),
            mask=jnp.asarray(self.mask),
            lengths=jnp.asarray(self.lengths),
            generated=jnp.asarray(self.generated),
            seen=jnp.asarray(seen),
        )


def random_state(seed, *, end):
    """Logits, and left-padded texts of every length; all of them end at `end`.

    Padding and what is not written yet hold tokens of the vocabulary all the same.
    """
    random = np.random.default_rng(seed)
    token_ids = random.integers(0, VOCABULARY, (ROWS, SLOTS))
    mask = np.zeros((ROWS, SLOTS), np.int32)
    text_lengths = np.arange(ROWS) // 2 + 1
    for row in range(ROWS):
        mask[row, max(end - text_lengths[row], 0) : end] = 1
        if row % 2:  # one that turns in circles, so that long n-grams do come back
            token_ids[row] = np.resize(token_ids[row, : row % 5 + 2], SLOTS)
    logits = random.normal(size=(ROWS, VOCABULARY)) * 3
    return State(
        logits=logits.astype(np.float32),
        token_ids=token_ids.astype(np.int32),
        mask=mask,
        lengths=np.full(ROWS, end, np.int32),
        generated=(random.integers(0, 20, ROWS) % text_lengths).astype(np.int32),
    )


def left_aligned(state):
    """The same texts from slot 0 on, so that each ends elsewhere.

    What stands behind an end is marked as written, as by a row's earlier owner.
    """
    texts = [state.text(row) for row in range(ROWS)]
    token_ids = state.token_ids.copy()
    for row, text in enumerate(texts):
        token_ids[row, : len(text)] = text
    return dataclasses.replace(
        state,
        token_ids=token_ids,
        mask=np.ones_like(state.mask),
        lengths=np.array([len(text) for text in texts], np.int32),
    )


def without_text(logits):
    """A state in which only the rules of sampling have something to say."""
    nothing = np.zeros((len(logits), 1), np.int32)
    none = np.zeros(len(logits), np.int32)
    return State(
        logits=np.asarray(logits, np.float32),
        token_ids=nothing,
        mask=nothing,
        lengths=none,
        generated=none,
    )


def in_full(scores, tokens):
    """Returns the candidates' scores by token, -inf where a token is none."""
    scores, tokens = np.asarray(scores), np.asarray(tokens)
    full = np.full((len(scores), VOCABULARY), -np.inf, np.float32)
    np.put_along_axis(full, tokens, scores, axis=1)
    return full


def our_scores(rules, state):
    return in_full(
        *jax.jit(candidates, static_argnames="static")(
            jnp.asarray(state.logits),
            static=rules.static,
            traced=rules.traced,
            texts=state.texts,
            eos=jnp.asarray(EOS),
        )
    )


def their_scores(rules, state):
    """Runs transformers row by row: it would count padding as text."""
    rows = []
    for row in range(len(state.logits)):
        text = torch.tensor(state.text(row)[None], dtype=torch.long)
        rules_of_row = _processors(rules, text.shape[1] - int(state.generated[row]))
        rows.append(rules_of_row(text, torch.tensor(state.logits[row : row + 1])))
    return torch.cat(rows).numpy()


def _processors(rules, prompt_length):
    least = len(EOS) + 1 if rules.beams > 1 else 1
    wanted = [
        (
            rules.repetition_penalty != 1,
            transformers.RepetitionPenaltyLogitsProcessor,
            (rules.repetition_penalty,),
        ),
        (
            rules.no_repeat_ngram > 0,
            transformers.NoRepeatNGramLogitsProcessor,
            (rules.no_repeat_ngram,),
        ),
        (
            rules.min_new_tokens > 0,
            transformers.MinNewTokensLengthLogitsProcessor,
            (prompt_length, rules.min_new_tokens, list(EOS)),
        ),
        (
            rules.length_decay_factor != 1,
            transformers.ExponentialDecayLengthPenalty,
            (
                (rules.length_decay_start, rules.length_decay_factor),
                list(EOS),
                prompt_length,
            ),
        ),
        (
            rules.temperature not in (0, 1),
            transformers.TemperatureLogitsWarper,
            (rules.temperature,),
        ),
        (
            rules.top_k > 0,
            transformers.TopKLogitsWarper,
            (rules.top_k, -np.inf, least),
        ),
        (
            rules.top_p < 1,
            transformers.TopPLogitsWarper,
            (rules.top_p, -np.inf, least),
        ),
        (
            rules.min_p > 0,
            transformers.MinPLogitsWarper,
            (rules.min_p, -np.inf, least),
        ),
    ]
    return transformers.LogitsProcessorList(
        kind(*arguments) for applies, kind, arguments in wanted if applies
    )
