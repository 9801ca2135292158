"""A model is loaded once, when it is needed, and again after it was given away."""

from isara_jax.models.model_handle import LoraModelHandle, ModelHandle


class Loads:
    """Counts the calls of a loader, and returns the count."""

    def __init__(self):
        self.count = 0

    def __call__(self):
        self.count += 1
        return self.count


def test_a_model_is_loaded_when_it_is_first_needed():
    load = Loads()
    handle = ModelHandle(load)
    assert load.count == 0
    assert handle() == handle() == 1
    assert handle.adapters is None


def test_a_model_that_is_given_is_not_loaded():
    load = Loads()
    handle = ModelHandle(load, 7)
    assert handle() == 7 and load.count == 0


def test_a_model_that_is_taken_or_dropped_is_loaded_again():
    load = Loads()
    handle = ModelHandle(load)
    assert handle.take() == 1
    assert handle() == 2
    handle.drop()
    assert handle() == 3


def test_adapters_are_what_is_trained_and_merged_what_is_run():
    load, merged = Loads(), []

    def merge(adapters):
        merged.append(adapters)
        return 10 * adapters

    handle = LoraModelHandle(load, merge=merge)
    assert (load.count, merged) == (0, [])
    assert handle.adapters == 1 and merged == []
    assert handle() == handle() == 10 and merged == [1]
    assert handle.take() == 1
    assert handle() == 20 and merged == [1, 2]
    handle.drop()
    assert handle.adapters == 3
