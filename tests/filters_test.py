"""Every rule with a pair that it rejects and a near one that it lets pass."""

import pytest

from isara_jax.errors import InputError
from isara_jax.examples import Candidate, Example, Pool
from isara_jax.filters import RULES, FilterConfig, apply_rules, keep
from isara_jax.run.workdir import RoundFolder
from isara_jax.runtime.files.records import Records

SEEDS = Pool(
    round_index=0,
    examples=(
        Example(
            question="Do goldfish forget everything after three seconds?",
            answer="Goldfish remember for months.",
            origin="seed-0000",
        ),
        Example(
            question="Is glass a slow liquid at room temperature?",
            answer="Glass is a solid.",
            origin="seed-0001",
        ),
    ),
)
ROUND_1 = Pool(
    round_index=1,
    examples=(
        Example(
            question="Does hair grow back thicker once shaved?",
            answer="It does not, it only looks so.",
            origin="r01-0003",
        ),
    ),
)
GOOD = {
    "question": "Can bulls see the colour red in a ring?",
    "answer": "Bulls react to the movement of the cape.",
}


def candidate(number=0, **changes):
    facts = {
        "id": f"r02-{number:04d}",
        "answer_finish": "eos",
        "question_demos": ("seed-0000",),
        "answer_demos": ("seed-0001", "r01-0003"),
        "nearest_seed": "seed-0001",
        "nearest_seed_similarity": 0.25,
    }
    return Candidate(**(facts | GOOD | changes))


def verdict(*candidates, **settings):
    """Returns the rule and the reason that the last one is rejected with, if it is."""
    _, rejected = apply_rules(
        candidates, [SEEDS, ROUND_1], config=FilterConfig(**settings), parent="M_1"
    )
    last = [record for record in rejected if record["id"] == candidates[-1].id]
    return (last[0]["rule"], last[0]["reason"]) if last else None


def test_a_good_pair_passes_every_rule():
    assert verdict(candidate()) is None


SAME = GOOD["question"].upper().replace(" ", "  ")
REJECTED = {
    "duplicate_in_round": (
        [candidate(0), candidate(1, question=SAME)],
        {},
        "r02-0000 of this round asks the same",
    ),
    "duplicate_of_earlier": (
        [candidate(question="is glass a slow liquid at  room temperature?")],
        {},
        "seed-0001 asks the same",
    ),
    "copy_of_demo": (
        [candidate(question="Do goldfish forget everything after thirty seconds?")],
        {},
        "ROUGE-L 0.86 > 0.7 to the demonstration "
        "'Do goldfish forget everything after three seconds?'",
    ),
    "short_question": (
        [candidate(question="Are bulls  colour-blind animals?")],
        {},
        "4 words, at least 5 are asked for",
    ),
    "short_answer": (
        [candidate(answer="They see no red.")],
        {},
        "4 words, at least 5 are asked for",
    ),
    "unfinished_answer": (
        [candidate(answer_finish="length")],
        {"unfinished_answers": False},
        "the answer was cut at its greatest length",
    ),
    "answer_in_question": (
        [candidate(answer="see the colour red in")],
        {},
        "the answer is a part of the question",
    ),
}


def test_the_table_has_every_rule():
    assert list(REJECTED) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize("rule", REJECTED)
def test_a_pair_is_rejected_by_its_rule(rule):
    candidates, settings, reason = REJECTED[rule]
    assert verdict(*candidates, **settings) == (rule, reason)


KEPT = {
    "duplicate_in_round: one word differs": (
        [candidate(0), candidate(1, question=SAME + " Or not?")],
        {},
    ),
    "duplicate_in_round: the first was rejected": (
        [candidate(0, answer="No."), candidate(1)],
        {},
    ),
    "duplicate_of_earlier: not asked for": (
        [candidate(question=ROUND_1.examples[0].question)],
        {"earlier_duplicates": False},
    ),
    "copy_of_demo: as close to a seed that is no demo of its own": (
        [candidate(question="Is glass a slow liquid at high temperature?")],
        {},
    ),
    "copy_of_demo: 3 of 5 words and 3 of 4 are 0.67": (
        [candidate(question="do goldfish forget or remember")],
        {},
    ),
    "copy_of_demo: not asked for": (
        [candidate(question="Do goldfish forget everything after thirty seconds?")],
        {"max_demo_rouge": 1.0},
    ),
    "short_question: 5 words": (
        [candidate(question="Are bulls red colour blind?")],
        {},
    ),
    "short_answer: 5 words": ([candidate(answer="They do not see red.")], {}),
    "unfinished_answer: let pass as in the paper": (
        [candidate(answer_finish="length")],
        {},
    ),
    "unfinished_answer: cut at a stop string": (
        [candidate(answer_finish="stop")],
        {"unfinished_answers": False},
    ),
    "answer_in_question: another case": (
        [candidate(answer="See the colour red in")],
        {},
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_a_near_pair_is_kept(case):
    candidates, settings = KEPT[case]
    assert verdict(*candidates, **settings) is None


def test_earlier_rounds_count_as_the_seeds_do():
    again = candidate(question=ROUND_1.examples[0].question)
    assert verdict(again) == ("duplicate_of_earlier", "r01-0003 asks the same")


def test_the_first_rule_that_rejects_is_recorded():
    assert verdict(candidate(question="red", answer="red"))[0] == "short_question"


def test_an_empty_pair_is_rejected():
    assert verdict(candidate(question="", answer=""))[0] == "short_question"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_demo_rouge": 1.5}, "max_demo_rouge=1.5: must be from 0 to 1"),
        ({"max_demo_rouge": float("nan")}, "max_demo_rouge=nan"),
        ({"min_question_words": -1}, "min_question_words=-1: must be 0 or more"),
        ({"min_answer_words": -1}, "min_answer_words=-1: must be 0 or more"),
    ],
)
def test_a_wrong_setting_is_refused(settings, message):
    with pytest.raises(InputError) as caught:
        FilterConfig(**settings)
    assert str(caught.value).startswith(message)


def kept_by(candidates, folder):
    return keep(candidates, [SEEDS, ROUND_1], config=FilterConfig(), folder=folder)


def test_both_files_have_all_that_is_known_of_a_pair(tmp_path):
    folder = RoundFolder(tmp_path / "round_02")
    other = {"question": "Are bats blind in full daylight?", "answer": "No."}
    pool = kept_by([candidate(0), candidate(1, **other)], folder)
    assert pool.round_index == 2
    assert pool.examples == (Example(**GOOD, origin="r02-0000"),)
    record = {
        "id": "r02-0000",
        **GOOD,
        "question_demos": ["seed-0000"],
        "answer_demos": ["seed-0001", "r01-0003"],
        "nearest_seed": "seed-0001",
        "nearest_seed_similarity": 0.25,
        "parent": "M_1",
    }
    assert Records(folder.kept).read() == [record]
    assert Records(folder.rejected).read() == [
        record
        | {
            "id": "r02-0001",
            **other,
            "rule": "short_answer",
            "reason": "1 words, at least 5 are asked for",
        }
    ]


def test_what_is_kept_is_not_filtered_again(tmp_path):
    folder = RoundFolder(tmp_path / "round_02")
    first = kept_by([candidate(0)], folder)
    before = folder.kept.read_bytes()
    assert (
        kept_by([candidate(0), candidate(1, question="a b c d e f")], folder) == first
    )
    assert folder.kept.read_bytes() == before


def test_nothing_kept_is_an_empty_pool(tmp_path):
    folder = RoundFolder(tmp_path / "round_02")
    assert len(kept_by([candidate(answer="")], folder)) == 0
    assert folder.kept.read_bytes() == b""
