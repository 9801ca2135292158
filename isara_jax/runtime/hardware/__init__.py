"""The machine: its memory, its measured rates, its platforms, compiled programs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
