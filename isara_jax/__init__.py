"""ISARA in JAX: a language model aligns itself to a handful of pairs.

    import isara_jax as isara

`isara.load_model`, `isara.Engine`, `isara.finetune`, `isara.evaluate` and `isara.align`
are the library; docs/library.md has an example of each. Names are imported when they
are first used, so importing the package takes milliseconds and starts no JAX.
"""

import os
import sys
import types

import lazy_loader

__version__ = "0.1.0"

# transformers serves tokenizers here; that it found no torch is no news to a user.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _Package(types.ModuleType):
    """Keeps a function under its name when a submodule of that name is imported.

    Importing `isara_jax.align`, the module, would set it as the package's attribute,
    where `isara_jax.align` is the function. lazy_loader sees to this only for functions
    that come from the module of their own name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
