r"""BigBiGAN on ImageNet (arXiv 1907.02544), unconditional, 128 x 128: the paper's main generator.

python -m checkpoints_convert.convert --variant=bigbigan-128 \
  --output=checkpoints/bigbigan-128.safetensors
python -m unseg_jax.main --config=configs/bigbigan.py
"""

from unseg_jax import default_config


def get_config():
  """Returns the paper's settings, unchanged."""
  return default_config.for_published("bigbigan-128")
