"""Models as immutable NNX values: families, layers, LoRA, and their file formats."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
