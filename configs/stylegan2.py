r"""StyleGAN2-ADA (arXiv 2006.06676), NVIDIA's published networks.

python -m checkpoints_convert.convert --variant=stylegan2-ffhq \
  --output=checkpoints/stylegan2-ffhq.safetensors
python -m unseg_jax.main --config=configs/stylegan2.py

Others: configs/stylegan2.py:afhqcat, afhqdog, afhqwild (512 x 512) and metfaces (1024 x 1024).
"""

from unseg_jax import default_config

DATA_SETS = ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces")


def get_config(data_set="ffhq"):
  """The paper's method in the space of w, truncated towards the mean."""
  data_set = default_config.choose(data_set, DATA_SETS)
  config = default_config.for_published(f"stylegan2-{data_set}")
  config.generator_options.truncation_psi = 0.5
  config.generator_options.truncation_cutoff = 8
  config.search.microbatch = 8 if data_set.startswith("afhq") else 4
  config.generate.chunk = 8
  config.generate.shard_candidates = 1_024
  return config
