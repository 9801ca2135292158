"""Beam search and beam-sample: several continuations of a prompt, one is kept."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
