"""Decoding: the state of the slots, a step over it, and batch compaction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
