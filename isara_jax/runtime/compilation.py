"""Compiled programs, kept on the disk for the next run."""

from pathlib import Path

import jax


def keep_compiled(folder: str) -> None:
    """Turns JAX's persistent compilation cache on; an empty name leaves it off."""
    if not folder:
        return
    jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
