r"""StyleGAN2-ADA (arXiv 2006.06676): networks published by NVIDIA, or your own.

python -m checkpoints_convert.convert --variant=stylegan2-ffhq \
  --output=checkpoints/stylegan2-ffhq.safetensors
python -m unseg_jax.main --config=configs/stylegan2.py

Other networks: configs/stylegan2.py:afhqcat, afhqdog, afhqwild (512 x 512) and metfaces
(1024 x 1024).

Your own network: configs/stylegan2.py:own if NVIDIA's code trained it, or
configs/stylegan2.py:rosinality if rosinality's did.

python -m checkpoints_convert.convert --source=CHECKPOINT.pth \
  --output=checkpoints/stylegan2-rosinality.safetensors
python -m unseg_jax.main --config=configs/stylegan2.py:rosinality
"""

from unseg_jax import default_config

DATA_SETS = ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces")
OWN = {"own": "stylegan2", "rosinality": "rosinality"}  # Variant -> checkpoint format.


def get_config(variant="ffhq"):
  """Returns the paper's settings, with the search in W space, truncated towards the mean."""
  variant = default_config.choose(variant, (*DATA_SETS, *OWN))
  if variant in OWN:
    config = default_config.for_own(f"stylegan2-{variant}", OWN[variant])
  else:
    config = default_config.for_published(f"stylegan2-{variant}")
  config.generator_options.truncation_psi = 0.5
  # rosinality's code truncates all layers.
  config.generator_options.truncation_cutoff = None if variant == "rosinality" else 8
  if variant == "own":
    config.generator_options.label = ()  # Classes of a conditional network; (): all.
  config.search.microbatch = 8 if variant.startswith("afhq") else 4
  config.generate.chunk = 8
  config.generate.shard_candidates = 1_024
  return config
