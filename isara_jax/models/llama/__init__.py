"""LLaMA and its descendants: the model, and its Hugging Face and GGUF formats."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
