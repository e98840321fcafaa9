r"""StyleGAN3 (arXiv 2106.12423): networks of configurations T and R, published by NVIDIA.

python -m checkpoints_convert.convert --variant=stylegan3-t-ffhq \
  --output=checkpoints/stylegan3-t-ffhq.safetensors
python -m unseg_jax.main --config=configs/stylegan3.py

Other networks: configs/stylegan3.py:t-ffhqu, t-metfaces and t-metfacesu (1024 x 1024), t-afhqv2
(512 x 512) and t-ffhqu-256 (256 x 256). With r instead of t, they are of configuration R, which is
equivariant to rotation, takes about three times as long, and twice the memory.
"""

from unseg_jax import default_config

DATA_SETS = ("ffhq", "ffhqu", "ffhqu-256", "afhqv2", "metfaces", "metfacesu")
NETWORKS = tuple(f"{kind}-{data_set}" for kind in "tr" for data_set in DATA_SETS)


def get_config(network="t-ffhq"):
  """Returns the paper's settings, with the search in W space, truncated towards the mean."""
  network = default_config.choose(network, NETWORKS)
  config = default_config.for_published(f"stylegan3-{network}")
  config.generator_options.truncation_psi = 0.5
  config.generator_options.truncation_cutoff = 8
  # Images whose gradients fit into 16 GiB.
  at_once = (1 if network.startswith("r") else 2) * (4 if "256" in network else 1)
  config.search.microbatch = at_once
  config.generate.chunk = 2 * at_once
  config.generate.shard_candidates = 1_024
  return config
