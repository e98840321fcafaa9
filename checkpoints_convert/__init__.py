"""Converts published PyTorch generators to the generator files of unseg-jax."""
