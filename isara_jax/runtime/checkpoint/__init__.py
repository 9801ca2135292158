"""Arrays on the disk, by Orbax: trees, and streams of named tensors.

Both are written whole or not at all. A tree is read back into the shapes and shardings
of a target, a tensor of a stream by its name.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
