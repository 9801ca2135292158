"""Where figures were taken: the commit, the hardware and the packages."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("jax", "torch", "transformers", "llama-cpp-python")


def surroundings() -> str:
    """Returns them as a line."""
    cores = len(os.sched_getaffinity(0))
    found = [
        f"commit {_commit()}",
        f"{cores} cores of {_processor()}",
        _gpus(),
        f"Python {platform.python_version()}",
        *(f"{name} {version}" for name in PACKAGES if (version := _version(name))),
    ]
    return ", ".join(found)


def _commit() -> str:
    commit = _said("git", "rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    changed = _said("git", "status", "--porcelain", "--untracked-files=no")
    return f"{commit} with changes" if changed else commit


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line for line in lines if line.startswith("model name")]
    if names:
        return names[0].partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> str:
    found = _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return " + ".join(found.splitlines()) if found else "no GPU"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _said(*command: str) -> str:
    """Returns what a command prints, or nothing where it fails or is not there."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
