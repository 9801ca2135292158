"""The sampling engine: token ids in, token ids and log-probabilities out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
