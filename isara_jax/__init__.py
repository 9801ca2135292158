"""ISARA in JAX: a language model aligns itself to a handful of pairs."""

import os

__version__ = "0.1.0"

# transformers serves tokenizers here; that it found no torch is no news to a user.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
