r"""Self-conditioned GAN and unconditional GAN on ImageNet (arXiv 2006.10728), 128 x 128.

python -m checkpoints_convert.convert --variant=selfcondgan-imagenet \
  --output=checkpoints/selfcondgan-imagenet.safetensors
python -m unseg_jax.main --config=configs/selfcond.py

Unconditional GAN: configs/selfcond.py:uncondgan.
"""

from unseg_jax import default_config

NETWORKS = ("selfcondgan", "uncondgan")


def get_config(network="selfcondgan"):
  """Returns the paper's settings, unchanged."""
  network = default_config.choose(network, NETWORKS)
  return default_config.for_published(f"{network}-imagenet")
