"""References from code, settings and documents to documents, and those that are broken.

A reference is a file's name that ends in `.md`, from the root of the repository or from
the file that names it; a title in double quotes may follow it. It is broken if the
repository has no such file, or the file no such title.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from python_source import ROOT

FOLDERS = ("isara_jax", "tests", "benchmarks", "configs", "docs", "launch")
ENDINGS = (".py", ".pyi", ".md", ".flags", ".sh", ".html", ".js")

# docs/method.md, "Filter"
REFERENCE = re.compile(r'([\w./-]*\w\.md)\b(?:\)?,? "([^"]+)")?')
# A document's name in capitals and the number of a section; versions are no sections.
BARE = re.compile(r"\b(?!CUDA)[A-Z]{4,} \d+(?=[.,;:)\s]|$)")
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
    for match in BARE.findall(flat):
        yield f"{match}: a section of what document?"


def _document(name: str, path: Path) -> Path | None:
    places = (ROOT / name, path.parent / name)
    return next((place for place in places if place.is_file()), None)
