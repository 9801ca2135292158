"""Kernels of accelerators that run on CPU, in Pallas's interpreter."""

import functools

import jax
from jax._src import literals
from jax.experimental import pallas as pl


def interpret_kernels(monkeypatch):
    """Makes every Pallas kernel interpreted, and XLA stand in for cuDNN.

    JAX's functions around its kernels cache what they traced: a process that interprets
    must not lower for a chip as well.
    """
    compiled = pl.pallas_call

    @functools.wraps(compiled)
    def interpreted(*arguments, **options):
        return compiled(*arguments, **options | {"interpret": True})

    monkeypatch.setattr(pl, "pallas_call", interpreted)
    # The interpreter of jax 0.10.2 asks a constant index of the paged kernel for it.
    monkeypatch.setattr(literals.TypedInt, "shape", (), raising=False)
    attention = jax.nn.dot_product_attention

    def without_cudnn(*arrays, implementation, **options):
        assert implementation == "cudnn"
        return attention(*arrays, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", without_cudnn)
