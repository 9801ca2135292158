"""How a continuation ends, and that when this was noticed makes no difference.

Scripts are played by a LLaMA that counts: token 1 is the script's first piece, 2 the
next, and past its end comes "~" for ever.
"""

import functools
import math

import pytest
from completions import assert_scored, complete, random_prompts
from counting_llama import PROBABILITY, counting_llama
from tiny_llama import tiny_llama

from isara_jax.engine import continuous_batching as group_run
from isara_jax.engine.request import Request
from isara_jax.engine.sampling.params import SamplingParams

pytestmark = pytest.mark.optimized

LONGEST = 12
PLAY = SamplingParams(max_new_tokens=LONGEST, temperature=0.0)
SCRIPT = Request(id="script", sample_index=0, token_ids=(90, 0))
# A row that goes on to the last token, so that the batch does too.
ENDLESS = Request(id="endless", sample_index=1, token_ids=(50,))
# Script, stops; text, end and number of tokens. "|" parts the pieces.
ENDINGS = {
    "a stop": (" Bats| see|. |END| OF", ("END",), "Bats see.", "stop", 4),
    "a stop at position 0 does not count": (
        *("END| of| it|END|.", ("END",)),
        *("END of it", "stop", 4),
    ),
    "a stop after a space": (" |END", ("END",), "", "stop", 2),
    "a stop of many tokens": ("a|E|N|D|.", ("END",), "a", "stop", 4),
    "a stop of parts of tokens": ("a|b E|N|D c|d", ("END",), "ab", "stop", 4),
    "a part of a stop is none": ("a|E|N|d|</s>", ("END",), "aENd", "eos", 5),
    "two stops in one token": ("a|b END USER|c", ("USER", "END"), "ab", "stop", 2),
    "the stop that is complete first, not the one that begins first": (
        *("x|ab|cd|ef", ("abcdef", "cd")),
        *("xab", "stop", 3),
    ),
    "eos": ("a|b|</s>|c", ("END",), "ab", "eos", 3),
    "eos at once": ("</s>|a|END", ("END",), "", "eos", 1),
    "eos and then a stop": ("a|</s>|END", ("END",), "a", "eos", 2),
    "eos inside what would be a stop": ("a|EN|</s>|D", ("END",), "aEN", "eos", 3),
    "a stop and then eos": ("a|END|</s>", ("END",), "a", "stop", 2),
    "another eos": ("a|</turn>|b|</s>", ("END",), "a", "eos", 2),
    "the longest": ("a|b", ("END",), "ab" + "~" * 10, "length", LONGEST),
    "no stops": ("a|END", (), "aEND" + "~" * 10, "length", LONGEST),
    "a stop as the last token": (
        "|".join("abcdefghijkX"),
        ("X",),
        *("abcdefghijk", "stop", 12),
    ),
    "eos as the last token": ("a|" * 11 + "</s>", ("X",), *("a" * 11, "eos", 12)),
    "a stop one token too late": (
        "a|" * 11 + "E|ND",
        ("END",),
        *("a" * 11 + "E", "length", 12),
    ),
    "white space around the text": ("\n a |b \n|\tEND", ("END",), "a b", "stop", 3),
}


def play(script, stops, prompts, *, check=lambda: None):
    pieces = ["", *script.split("|")]
    ends = [at for at, piece in enumerate(pieces) if piece in ("</s>", "</turn>")]
    return complete(
        counting_llama(),
        prompts,
        sampling_params=PLAY,
        eos=(96, 96, *ends)[-2:],
        stops=stops,
        decode=lambda ids: "".join(pieces[i] if i < len(pieces) else "~" for i in ids),
        check=check,
    )


@pytest.mark.parametrize("stretch", [1, 3, 8])
@pytest.mark.parametrize("prompts", [[SCRIPT], [SCRIPT, ENDLESS]], ids=len)
@pytest.mark.parametrize("stop_criteria", ENDINGS)
def test_an_ending(monkeypatch, stop_criteria, prompts, stretch):
    monkeypatch.setattr(group_run, "STEPS_BETWEEN_SYNCS", stretch)
    script, stops, text, finish, count = ENDINGS[stop_criteria]
    completions = play(script, stops, prompts)
    played = completions["script"]
    assert (played.text, played.finish_reason) == (text, finish)
    assert played.tokens == tuple(range(1, count + 1))
    assert played.prompt_tokens == 2
    assert played.log_probability == pytest.approx(
        count * math.log(PROBABILITY), rel=1e-4
    )
    if ENDLESS in prompts:
        assert completions["endless"].tokens == tuple(range(51, 51 + LONGEST))


def words(ids):
    return "".join(f" {id:02d}" for id in ids)


PROMPTS = random_prompts(1, 5, 12, 30, 3, 12, 8, 20)
SAMPLED = SamplingParams(max_new_tokens=25, top_k=30, repetition_penalty=1.2)
sampled = functools.partial(
    complete,
    sampling_params=SAMPLED,
    eos=(3, 40, 77),
    stops=("7 2", "6 1", "91 0", "66"),
    decode=words,
)


@pytest.fixture(scope="module")
def completions():
    return sampled(tiny_llama(), PROMPTS)


def test_records_do_not_depend_on_when_a_stop_is_noticed(monkeypatch, completions):
    assert {c.finish_reason for c in completions.values()} == {"eos", "stop", "length"}
    for stretch in (1, 3, 25):
        monkeypatch.setattr(group_run, "STEPS_BETWEEN_SYNCS", stretch)
        monkeypatch.setattr(group_run, "STEPS_BETWEEN_SYNCS_WHILE_WAITING", stretch + 1)
        assert sampled(tiny_llama(), PROMPTS) == completions


def test_the_log_probability_is_that_of_score(completions):
    assert_scored(tiny_llama(), PROMPTS, completions)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_a_check_that_raises_leaves_nothing_half_done(completions, allowed):
    calls = []

    def check():
        if len(calls) == allowed:
            raise Stopped
        calls.append(None)

    with pytest.raises(Stopped):
        sampled(tiny_llama(), PROMPTS, check=check)
    assert len(calls) == allowed
    assert sampled(tiny_llama(), PROMPTS) == completions


@pytest.mark.parametrize(
    ("script", "stretches"), [("a", 2), ("a|</s>", 1), ("a|END", 1)]
)
def test_check_is_called_before_the_prompt_and_every_stretch_until_all_are_done(
    script, stretches
):
    calls = []
    play(script, ("END",), [SCRIPT], check=functools.partial(calls.append, None))
    assert len(calls) == 1 + stretches
