r"""CIPS (arXiv 2011.13775), 256 x 256: a published checkpoint or your own.

python -m checkpoints_convert.convert --format=cips --source=CHECKPOINT.pth \
  --output=checkpoints/cips.safetensors
python -m unseg_jax.main --config=configs/cips.py

Download the published checkpoints by hand, from the links in the README of saic-mdal/CIPS.
"""

from unseg_jax import default_config


def get_config():
  """Returns the paper's settings, with the search in W space, truncated towards the mean."""
  config = default_config.for_own("cips", "cips")
  config.generator_options.truncation_psi = 0.5
  config.generator_options.noise = "none"  # The original code uses "random".
  config.search.microbatch = 2
  config.generate.chunk = 8
  config.generate.shard_candidates = 1_024
  return config
