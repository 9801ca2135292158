"""A run's folder: what lies where, what fixes the run, what it hands over."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
