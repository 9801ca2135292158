"""Where figures were taken."""

import os
import re

from benchmarks import surroundings as module
from benchmarks.surroundings import surroundings


def test_the_line_has_the_commit_the_hardware_and_the_packages():
    line = surroundings()
    assert re.match(r"commit ([0-9a-f]{7,}( with changes)?|unknown), ", line)
    assert f"{len(os.sched_getaffinity(0))} cores of " in line
    assert re.search(r", jax 0\.\d+\.\d+, torch 2\.", line)


def test_graphics_cards_are_named(monkeypatch):
    monkeypatch.setattr(module, "_said", lambda *_: "NVIDIA H200\nNVIDIA H200")
    assert ", NVIDIA H200 + NVIDIA H200, " in surroundings()


def test_without_git_or_driver_it_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    line = surroundings()
    assert line.startswith("commit unknown, ") and ", no GPU, " in line
