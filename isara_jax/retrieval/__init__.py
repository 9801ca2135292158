"""From texts to unit vectors, and from a vector to its nearest neighbours."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
