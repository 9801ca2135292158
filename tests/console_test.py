"""The command isara-jax: its help, unknown commands, and the modules behind it."""

import subprocess
import sys

import pytest
from python_source import ROOT

from isara_jax import __version__, console

SCREEN = 24


def start(*arguments, then="pass"):
    """Runs the command as its entry point does; `then` is Python to run at its end."""
    code = f"from isara_jax.console import run\ntry:\n run()\nfinally:\n {then}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help_is_one_screen_that_names_every_command(arguments, capsys):
    assert console.main(arguments) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= SCREEN
    assert max(map(len, shown.splitlines())) <= 80
    for name in console.COMMANDS:
        assert f"\n  {name} " in shown


def test_the_version_is_the_package_s(capsys):
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("aling", "aling: unknown command, did you mean align?"),
        (
            "dance",
            "dance: unknown command, must be align, generate, chat, convert, fit, "
            "report",
        ),
        (
            "--workdir=runs/mine",
            "--workdir=runs/mine: a command comes first, one of align, generate, chat, "
            "convert, fit, report",
        ),
    ],
)
def test_an_unknown_command_is_one_sentence(name, sentence, capsys):
    assert console.main([name]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"{sentence}\n")


def test_what_needs_no_command_imports_no_jax():
    found = start("--help", then="import sys; print('jax' in sys.modules)")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "False")


def test_a_command_has_the_help_of_its_module():
    found = start("report", "--help")
    assert found.stdout.startswith("Rebuilds `report.html` and the TensorBoard files")
    assert "--workdir:" in found.stdout


def test_a_command_ends_with_the_code_and_the_sentence_of_its_module(tmp_path):
    found = start("report", f"--workdir={tmp_path}")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == (
        f"--workdir={tmp_path}: no run's folder, manifest.json is missing\n"
    )


def test_every_command_runs_a_module_that_is_there(monkeypatch):
    started = []
    monkeypatch.setattr(
        console.runpy, "run_module", lambda name, **_: started.append(name)
    )
    monkeypatch.setattr(sys, "argv", ["isara-jax"])
    for name in console.COMMANDS:
        assert console.main([name, "--seed=1"]) == 0
        assert sys.argv == ["isara-jax", "--seed=1"]
    assert started == [module for module, _ in console.COMMANDS.values()]
    for module in started:
        source = (ROOT / module.replace(".", "/")).with_suffix(".py")
        text = source.read_text(encoding="utf-8")
        assert text.endswith('\nif __name__ == "__main__":\n    run()\n')
