"""Model cards: their YAML front matter, and the card of a converted model."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from isara_jax.runtime import ORBAX
from isara_jax.runtime.files import write_text

# In the card's front matter, which the second `---` ends; the first where it is a list.
LICENCE = re.compile(
    r"\A---\n(?:(?!---).*\n)*?license:\s*(?:-\s+|\[\s*)?['\"]?(\w[\w.-]*)"
)


def front_matter(fields: Mapping[str, Any]) -> str:
    """Writes the YAML head of a card; JSON is YAML, and quotes what must be quoted."""
    lines = [f"{name}: {json.dumps(value)}" for name, value in fields.items()]
    return "\n".join(("---", *lines, "---"))


def licence_text(license: str) -> str:
    """Returns a licence as a card states it; an empty one is not stated."""
    return f"`{license}`" if license else "not stated in its files"


def write_card(
    folder: Path,
    *,
    title: str,
    base: str,
    license: str,
    found: Collection[str],
    dtype: str,
    adapter: str = "",
) -> None:
    """Writes the README.md of a converted model: source, licence and dtypes."""
    head = front_matter(
        {
            "license": license or "other",
            "pipeline_tag": "text-generation",
            "tags": ["isara"],
        }
    )
    where = f"`{ORBAX}/`, a flat tree by Orbax" if (folder / ORBAX).is_dir() else ""
    where = where or "safetensors files"
    made = "those of the base; nothing was trained"
    if adapter:
        made = f"those of the base and of the adapter `{adapter}`, merged"
    text = f"""{head}
# {title}

- **Base**: `{base}`, licence {licence_text(license)}
- **Weights**: {where}, under Hugging Face's names and in its orientation
- **Precision**: {dtype}, from {", ".join(sorted(found))} in the source

The weights are {made}. Converted by isara_jax.
"""
    write_text(folder / "README.md", text)


def licence_of_card(card: Path) -> str:
    """Returns the licence in a card's front matter, or an empty text without one."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = LICENCE.search(text)
    return found[1] if found else ""
