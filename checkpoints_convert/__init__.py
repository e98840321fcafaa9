"""Converts published PyTorch checkpoints to the generator files of unseg-jax."""
