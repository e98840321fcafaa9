r"""StyleGAN2-ADA (arXiv 2006.06676), NVIDIA's published networks, and networks of one's own.

python -m checkpoints_convert.convert --variant=stylegan2-ffhq \
  --output=checkpoints/stylegan2-ffhq.safetensors
python -m unseg_jax.main --config=configs/stylegan2.py

Others: configs/stylegan2.py:afhqcat, afhqdog, afhqwild (512 x 512) and metfaces (1024 x 1024).

Networks of one's own: configs/stylegan2.py:own of NVIDIA's code, configs/stylegan2.py:rosinality of
rosinality's.

python -m checkpoints_convert.convert --source=CHECKPOINT.pth \
  --output=checkpoints/stylegan2-rosinality.safetensors
python -m unseg_jax.main --config=configs/stylegan2.py:rosinality
"""

from unseg_jax import default_config

DATA_SETS = ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces")
OWN = {"own": "stylegan2", "rosinality": "rosinality"}  # Variant -> the format of the checkpoint.


def get_config(variant="ffhq"):
  """The paper's method in the space of w, truncated towards the mean."""
  variant = default_config.choose(variant, (*DATA_SETS, *OWN))
  if variant in OWN:
    config = default_config.for_own(f"stylegan2-{variant}", OWN[variant])
  else:
    config = default_config.for_published(f"stylegan2-{variant}")
  config.generator_options.truncation_psi = 0.5
  # rosinality's code truncates all rows.
  config.generator_options.truncation_cutoff = None if variant == "rosinality" else 8
  if variant == "own":
    config.generator_options.label = ()  # Of a conditional network: some classes; (): all.
  config.search.microbatch = 8 if variant.startswith("afhq") else 4
  config.generate.chunk = 8
  config.generate.shard_candidates = 1_024
  return config
