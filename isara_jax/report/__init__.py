"""What a run shows: the page, the summary table and the TensorBoard scalars."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
