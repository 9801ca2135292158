"""Holds the repository to its limits: files a folder, lines a file, and references.

`python tests/support/repository/structure.py` prints the figures.
"""

import pytest
from documents import broken_references, text_files
from mirror import unattached_tests, untested_modules
from python_source import ROOT
from structure import read_folders

MOST_FILES = 12
MOST_LINES = 350
# Folders with more files, and why.
MORE_FILES: dict[str, str] = {
    "isara_jax": "the steps of the paper, a file each, and the commands",
    "tests": "mirrors the top of the package, and tests the repository itself",
}

# Modules that no test file is named after, and where they are tested.
TESTED_ELSEWHERE = {
    "api/prompting": "a call each: by api/engine_test and api/evaluating_test",
    "report/run_data/values": "values: by report/run_data/read_test",
    "tools/text_model": "by the commands that open it: chat_test and generate_test",
}
# Tests that are named after no module of the package, and what they are about.
ABOUT_ELSE = {
    "benchmarks/": "benchmarks/, which they mirror",
    "cli/field_names_test.py": "the errors of all modules",
    "configs/": "configs/",
    "docs/": "the documents' programs",
    "end_to_end/": "the whole loop",
    "launch/": "launch/",
    "conftest_test.py": "tests/conftest.py",
    "conventions_test.py": "the code of all modules",
    "import_test.py": "the package as it is imported",
    "layering_test.py": "the imports of all modules",
    "setup_test.py": "setup.py",
    "structure_test.py": "the repository",
}

FOLDERS = {folder.name: folder for folder in read_folders()}


def test_every_module_has_a_test_file_of_its_name():
    assert [name for name in untested_modules() if name not in TESTED_ELSEWHERE] == []


def test_every_test_file_is_named_after_a_module():
    found = unattached_tests()
    assert [test for test in found if not test.startswith(tuple(ABOUT_ELSE))] == []


@pytest.mark.parametrize(
    "path", text_files(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_reference_is_broken(path):
    assert broken_references(path) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_holds_few_files(name):
    if name not in MORE_FILES:
        assert len(FOLDERS[name].lines) <= MOST_FILES


@pytest.mark.parametrize("name", MORE_FILES)
def test_an_exception_is_one(name):
    assert len(FOLDERS[name].lines) > MOST_FILES


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_is_short(name):
    assert [f for f, count in FOLDERS[name].lines.items() if count > MOST_LINES] == []


# Written as format strings, or they would be references of this file.
ABSENT = "NOTES"
PRESENT = "docs/method"


@pytest.mark.parametrize(
    "text",
    [
        f'"""As {ABSENT}.md says."""',
        f'"""As {ABSENT} 5 says."""',
        f"x = 1  # see {ABSENT}.md, 3",
        f"f(help='as in {ABSENT}.md')",
        f'"""See {PRESENT}.md, "Recipes"."""',
        f"# as engine/{ABSENT}.py does",
        f'"""See {PRESENT}.md,\n    "Recipes"."""',
    ],
)
def test_a_broken_reference_is_found(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert broken_references(path) != []


@pytest.mark.parametrize(
    "text",
    [
        '"""As docs/method.md says."""',
        '"""See docs/method.md, "The\n    algorithm"."""',
        '"""See docs/method.md, "Filter", and arXiv 2401.06785 4."""',
        f"path = folder / '{ABSENT}.md'",
        "x = 1  # as of CUDA 12",
        "x = 1  # as engine/request.py and tests/structure_test.py do",
    ],
)
def test_a_sound_reference_passes(tmp_path, text):
    path = tmp_path / "module.py"
    path.write_text(text)
    assert broken_references(path) == []


def test_a_document_may_name_another_from_its_own_folder(tmp_path):
    (tmp_path / "other.md").write_text("# A title")
    path = tmp_path / "one.md"
    path.write_text("[text](other.md)\n")
    assert broken_references(path) == []
    path.write_text("[text](another.md)\n")
    assert broken_references(path) != []
