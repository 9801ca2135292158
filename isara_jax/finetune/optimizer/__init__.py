"""The optimizers, stochastic rounding, and the detection of loss spikes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
