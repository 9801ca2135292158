"""Builds isara_jax: what it needs, in ranges whose lower end is the tested version."""

import ast
from pathlib import Path

from setuptools import find_namespace_packages, setup

INSTALL_REQUIRES = [
    "absl-py>=2.5.1,<3",
    "datasets>=5.2,<6",
    "flax>=0.12.8,<0.13",
    "gguf>=0.19,<0.20",
    "huggingface_hub>=2.4,<3",
    "jax>=0.10.2,<0.11",
    "jaxtyping>=0.3.11,<0.4",
    "jinja2>=3.1.6,<4",
    "lazy_loader>=0.6,<0.7",
    "markupsafe>=3.0.4,<4",
    "matplotlib>=3.11.2,<4",
    "ml-dtypes>=0.6,<0.7",
    "numpy>=2.4.6,<3",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "qwix>=0.1.8,<0.2",
    "rouge-score>=0.1.2,<0.2",
    "safetensors>=0.8,<0.9",
    # Elsewhere retrieval searches exactly: ScaNN has wheels for these only.
    "scann>=1.4.2,<1.5; sys_platform == 'linux' "
    "and (platform_machine == 'x86_64' or platform_machine == 'aarch64') "
    "and python_version < '3.14'",
    "tensorboardX>=2.6.5,<3",
    "tqdm>=4.70,<5",
    "transformers>=5.23,<6",
]

EXTRAS_REQUIRE = {
    # What benchmarks/ compares with. llama-cpp-python compiles llama.cpp: it needs a
    # C++ compiler and some minutes, so it is no part of `test`.
    "bench": [
        "accelerate>=1.15,<2",
        "llama-cpp-python==0.3.36",
        "peft>=0.21.2,<0.22",
        "torch==2.13.0",
    ],
    "cuda": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    "test": [
        # transformers reads a GGUF file on torch only with it.
        "accelerate>=1.15,<2",
        "beartype>=0.23.1,<0.24",
        "hypothesis>=6.170.15,<7",
        # Compiles for TPUs on any CPU; what jax[tpu] of this jax asks for. 213 MB.
        "libtpu>=0.0.42,<0.0.43; sys_platform == 'linux' "
        "and platform_machine == 'x86_64'",
        "pytest>=9.2,<10",
        "pytest-xdist>=3.8,<4",
        # One version each: another one formats or judges the same code differently.
        "mypy==2.4.1",
        "ruff==0.17.6",
        # The oracles of the parity tests, never dependencies of the package.
        "peft>=0.21.2,<0.22",
        "torch==2.13.0",
    ],
}


ROOT = Path(__file__).parent


def version() -> str:
    """Returns `__version__` of the package, which is not imported for it."""
    source = (ROOT / "isara_jax" / "__init__.py").read_text(encoding="utf-8")
    (value,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "__version__"
    )
    found: str = ast.literal_eval(value)
    return found


def long_description() -> str:
    """Returns the README, or nothing in a tree that has none."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="isara_jax",
    version=version(),
    description=(
        "ISARA in JAX: a language model aligns itself to a few dozen examples "
        "by iterated in-context generation, filtering and finetuning"
    ),
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[
        *find_namespace_packages(include=["isara_jax", "isara_jax.*"]),
        "isara_jax.configs",
    ],
    # A wheel brings configs/ along: runtime/packaged.py finds it there.
    package_dir={"isara_jax.configs": "configs"},
    package_data={
        "": ["*.pyi", "py.typed"],
        "isara_jax.configs": ["*.flags", "**/*.jsonl"],
        "isara_jax.report": ["**/*.html", "**/*.css", "**/*.js"],
    },
    entry_points={"console_scripts": ["isara-jax = isara_jax.console:run"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
