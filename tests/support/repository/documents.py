"""References from code, settings and documents, and those of them that are broken.

A reference is a file's name that ends in `.md`, from the root of the repository or from
the file that names it, and a title in double quotes may follow it. It is broken if the
repository has no such file, or the file no such title. A path that ends in `.py` is one
as well; it may leave out the folders that it begins with.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from python_source import ROOT

FOLDERS = ("isara_jax", "tests", "benchmarks", "configs", "docs", "launch")
ENDINGS = (".py", ".pyi", ".md", ".flags", ".sh", ".html", ".js")

# docs/method.md, "Filter"
REFERENCE = re.compile(r'([\w./-]*\w\.md)\b(?:\)?,? "([^"]+)")?')
# A document's name in capitals and the number of a section; versions are no sections.
BARE = re.compile(r"\b(?!CUDA)[A-Z]{4,} \d+(?=[.,;:)\s]|$)")
# A program with its folder: engine/request.py, of the package or the repository.
PROGRAM = re.compile(r"(?<![\w./*<$-])([\w.-]+/[\w./-]*\w\.py)\b")
TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)


def text_files() -> list[Path]:
    """Lists the repository's files that may refer to a document."""
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for name in FOLDERS for path in (ROOT / name).rglob("*")]
    return sorted(path for path in files if path.suffix in ENDINGS)


def broken_references(path: Path) -> list[str]:
    """Returns a sentence for every broken reference of a file."""
    text = path.read_text(encoding="utf-8")
    prose = list(python_prose(text)) if path.suffix in (".py", ".pyi") else [text]
    return [found for part in prose for found in _broken(part, path)]


def python_prose(program: str) -> Iterator[str]:
    """Yields the comments of a program, and its strings of more than one word."""
    for node in ast.walk(ast.parse(program)):
        match node:
            case ast.Constant(value=str(text)) if len(text.split()) > 1:
                yield text
    comments = [
        token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(program).readline)
        if token.type == tokenize.COMMENT
    ]
    yield " ".join(comments)


def _broken(prose: str, path: Path) -> Iterator[str]:
    flat = " ".join(prose.split())
    for name, title in REFERENCE.findall(flat):
        document = _document(name, path)
        if document is None:
            yield f"{name}: there is no such document"
        elif title and title not in TITLE.findall(document.read_text("utf-8")):
            yield f'{name}: there is no section "{title}"'
    for program in PROGRAM.findall(flat):
        if not any(name.endswith(f"/{program}") for name in _programs()):
            yield f"{program}: there is no such program"
    for match in BARE.findall(flat):
        yield f"{match}: a section of what document?"


@cache
def _programs() -> tuple[str, ...]:
    found = [path for name in FOLDERS for path in (ROOT / name).rglob("*.py")]
    return tuple(f"/{path.relative_to(ROOT)}" for path in found)


def _document(name: str, path: Path) -> Path | None:
    places = (ROOT / name, path.parent / name)
    return next((place for place in places if place.is_file()), None)
