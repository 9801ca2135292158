"""Supervised finetuning: M_t from M_{t-1}, the seeds and what the round kept."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
