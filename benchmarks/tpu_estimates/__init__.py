"""How long does a step take on a TPU, by the compiler's own estimate? `../tpu.py` asks."""
