"""The kernels of TPU, compiled ahead of time at the shapes of real models."""

import importlib.util
import itertools
import re

import pytest
from processes import run_module

PROGRAMS = {
    "decode": "1 x ragged_paged_attention",
    "prefill": "1 x ragged_paged_attention",
    "gradient": "3 x splash_mha",
}


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not for this platform"
)
@pytest.mark.slow
def test_every_chip_s_programs_have_their_kernels_and_copy_no_cache():
    done = run_module(
        "benchmarks.kernels", TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="true"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    wanted = itertools.product(("v5e", "v5p", "v6e"), ("llama_7b", "smollm2"), PROGRAMS)
    for (chip, shape, program), line in zip(wanted, lines, strict=True):
        beginning = re.escape(f"{chip} {shape} {program}: {PROGRAMS[program]}, ")
        found = re.fullmatch(rf"{beginning}(\d+) MiB beside (\d+), [\d.]+ s", line)
        assert found, line
        scratch, held = map(int, found.groups())
        assert program == "gradient" or scratch < held, line
        assert program != "decode" or scratch < held / 10, line
