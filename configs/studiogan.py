r"""Class-conditional GANs on ImageNet, 128 x 128, as PyTorch-StudioGAN trains them.

python -m checkpoints_convert.convert --format=studiogan --source=CHECKPOINT.pth \
  --output=checkpoints/studiogan-sagan.safetensors
python -m unseg_jax.main --config=configs/studiogan.py:sagan

The checkpoints are to be fetched by hand, from the links in the README of PyTorch-StudioGAN. Their
shapes tell all that the network needs but `G_depth` of a BigGAN-deep, which is 2 unless
--config=CONFIG.yaml (formerly JSON) tells it; what else such a file tells is checked.

Others: configs/studiogan.py:sngan, biggan, contragan and biggan_deep.
"""

from unseg_jax import default_config

NETWORKS = ("sagan", "sngan", "biggan", "contragan", "biggan_deep")


def get_config(network="sagan"):
  """The paper's method; latents are normal, not truncated."""
  network = default_config.choose(network, NETWORKS)
  return default_config.for_own(f"studiogan-{network}", "studiogan")
