"""Compilations are counted as JAX itself reports them."""

from collections.abc import Iterator

import jax
import jaxtyping
import pytest


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """Names every program that is compiled while the test runs."""
    programs: list[str] = []

    def listen(event: str, duration: float, **attributes: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            programs.append(attributes["fun_name"])

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def types_unchecked() -> Iterator[None]:
    """JAX describes a lowered program's arguments as values of our types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
