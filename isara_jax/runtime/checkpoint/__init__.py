"""Checkpoints by Orbax: trees of arrays, and streams of named tensors.

Both are atomic: a checkpoint is complete or absent. A tree is restored into the shapes
and shardings of a target, a tensor of a stream is read by its name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
