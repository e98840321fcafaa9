r"""BigGAN-deep on ImageNet (arXiv 1809.11096), from Hugging Face's PyTorch port.

python -m checkpoints_convert.convert --variant=biggan-deep-256 \
  --output=checkpoints/biggan-deep-256.safetensors
python -m unseg_jax.main --config=configs/biggan.py

Other resolutions: configs/biggan.py:128 and configs/biggan.py:512.
"""

from unseg_jax import default_config

RESOLUTIONS = ("128", "256", "512")


def get_config(resolution="256"):
  """Returns the paper's settings, with latents and batch statistics at truncation 0.4."""
  resolution = default_config.choose(resolution, RESOLUTIONS)
  config = default_config.for_published(f"biggan-deep-{resolution}")
  config.generator_options.truncation = 0.4
  config.search.microbatch = {"128": 0, "256": 8, "512": 2}[resolution]
  config.generate.chunk = {"128": 64, "256": 32, "512": 8}[resolution]
  return config
