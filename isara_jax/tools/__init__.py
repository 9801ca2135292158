"""The commands beside `isara_jax.main`, each one thin."""
