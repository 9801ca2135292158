import functools

import fake_run
from processes import run_module

run_tool = functools.partial(run_module, "isara_jax.tools.report")


def test_the_tool_rebuilds_the_page_and_prints_the_summary(tmp_path):
    fake = fake_run.finished(tmp_path / "fake")
    done = run_tool(f"--workdir={fake.workdir.path}")
    assert done.returncode == 0, done.stderr
    assert "ISARA round 2 beats the pretrained model" in done.stdout
    assert done.stdout.endswith(f"{fake.workdir.report}\n")
    assert fake.workdir.report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert any((fake.workdir.path / "tensorboard").rglob("events*"))


def test_bad_input_is_one_sentence_and_code_2(tmp_path):
    done = run_tool(f"--workdir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "manifest.json is missing" in done.stderr
    assert done.stdout == ""


def test_an_argument_that_is_no_flag_is_refused(tmp_path):
    done = run_tool(f"--workdir={tmp_path}", "runs/x")
    assert done.returncode == 2
    assert "runs/x: not understood" in done.stderr
