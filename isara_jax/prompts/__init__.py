"""Demonstrations and an open turn as a prompt: text first, then token ids."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
