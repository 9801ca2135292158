"""A frozen base is resident beside every program, by its bytes."""

from isara_jax.fit.program import frozen_base_bytes
from isara_jax.runtime import bytes_on_device


def test_a_frozen_base_is_counted_where_there_is_one(fit_request):
    assert frozen_base_bytes(fit_request()) == {}
    request = fit_request(lora={"lora_rank": 2})
    assert frozen_base_bytes(request) == {"frozen base": bytes_on_device(request.base)}
    assert bytes_on_device(request.base) > 0
