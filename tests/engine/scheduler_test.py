"""Which requests share a batch, and how many positions its slots have."""

import dataclasses

import pytest

from isara_jax.engine.request import Request
from isara_jax.engine.scheduler import plan_groups
from isara_jax.errors import InputError


def prompts(*texts, first=0):
    return [
        Request(id=str(number), sample_index=number, token_ids=tuple(text))
        for number, text in enumerate(texts, first)
    ]


def plan(found, *, slots=4, row_multiple=1, new=20, context=2000):
    return plan_groups(
        found,
        slots=slots,
        row_multiple=row_multiple,
        max_new_tokens=new,
        context=context,
    )


def ids(group):
    return [planned.request.id for planned in group.planned]


def family(first, count, *, shared=100):
    """Prompts that begin alike and end with a token of their own."""
    return [[first] * shared + [number] for number in range(count)]


def test_nothing_is_no_group():
    assert plan([]) == ()


def test_prompts_are_in_the_order_of_their_tokens():
    (group,) = plan(prompts([3, 1], [1, 2], [1], [2]))
    assert ids(group) == ["2", "1", "3", "0"]
    assert (group.shared_len, group.rows, group.longest_prompt) == (0, 4, 2)
    assert group.max_len >= 2 + 20


def test_families_that_may_go_on_for_long_are_first():
    found = [
        dataclasses.replace(prompt, max_new_tokens=new)
        for prompt, new in zip(
            prompts([5], *family(7, 2, shared=40), [1], *family(8, 2, shared=40), [5]),
            (3, 9, 2, 20, 7, 90, 15),
            strict=True,
        )
    ]
    (group,) = plan(found, new=20)
    # Number 5 may write 20 of its 90, and so its family is as long as number 3.
    assert ids(group) == ["3", "4", "5", "0", "6", "1", "2"]
    for number, planned in enumerate(group.planned):
        starts = sum(span.start for span in planned.spans)
        assert starts == (40 if number in (2, 6) else 0)
        assert planned.spans[-1].end == len(planned.request.token_ids)


def test_what_all_share_is_kept_once():
    (group,) = plan(prompts(*family(7, 9)))
    assert (group.shared_len, group.rows) == (100, 4)
    assert 1 + 20 <= group.max_len < 100
    assert group.max_shared_len == 128


def test_a_short_shared_prefix_is_each_row_s_own():
    (group,) = plan(prompts(*family(7, 9, shared=63)))
    assert group.shared_len == 0


def test_every_prompt_keeps_a_token_of_its_own():
    (group,) = plan(prompts([7] * 80, [7] * 80, [7] * 90))
    assert group.shared_len == 79


def test_a_family_that_fills_the_slots_has_a_group():
    found = plan(prompts(*family(7, 5), *family(8, 3), [9], *family(6, 4)))
    assert [(group.shared_len, len(group.planned)) for group in found] == [
        (100, 4),
        (100, 5),
        (0, 4),
    ]
    assert sorted(id for group in found for id in ids(group)) == sorted(
        map(str, range(13))
    )


def test_families_within_a_family():
    common = [1] * 70
    found = plan(prompts(*(common + text for text in family(7, 5) + family(8, 2))))
    assert [(group.shared_len, len(group.planned)) for group in found] == [
        (170, 5),
        (170, 2),
    ]


def test_rows_are_a_multiple_and_no_more_than_needed():
    few = prompts([1], [2], [3])
    assert plan(few, slots=32)[0].rows == 3
    assert plan(few, slots=32, row_multiple=8)[0].rows == 8
    assert plan(few, slots=2)[0].rows == 2
    assert plan(few[:1], slots=32)[0].rows == 2
    assert plan(few[:1], slots=1)[0].rows == 1
    assert plan(few, slots=3, row_multiple=2)[0].rows == 2


def test_order_of_arrival_makes_no_difference():
    found = prompts(*family(7, 5), [1], [5, 5], *family(3, 2))
    assert plan(found) == plan(found[::-1])


@pytest.mark.parametrize(
    ("length", "new_tokens", "fits"),
    [(80, None, True), (81, None, False), (81, 19, True), (0, None, False)],
)
def test_what_does_not_fit_the_context(length, new_tokens, fits):
    found = [
        Request(
            id="a", sample_index=0, token_ids=(1,) * length, max_new_tokens=new_tokens
        )
    ]
    if fits:
        assert len(plan(found, context=100)) == 1
        return
    with pytest.raises(InputError, match=rf"^the prompt a has {length} tokens"):
        plan(found, context=100)
