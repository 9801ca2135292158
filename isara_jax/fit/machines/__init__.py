"""What is compiled for: TPU slices without their chips, or this host."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
