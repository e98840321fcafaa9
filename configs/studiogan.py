r"""Class-conditional GANs on ImageNet, 128 x 128, trained by PyTorch-StudioGAN.

python -m checkpoints_convert.convert --format=studiogan --source=CHECKPOINT.pth \
  --output=checkpoints/studiogan-sagan.safetensors
python -m unseg_jax.main --config=configs/studiogan.py:sagan

Download the checkpoints by hand, from the links in the README of PyTorch-StudioGAN. The converter
infers the architecture from the shapes in the checkpoint, except for `G_depth` of BigGAN-deep. That
is 2 unless --config=CONFIG.yaml (or .json) sets it. The converter checks the other values in such a
file against the checkpoint.

Other networks: configs/studiogan.py:sngan, biggan, contragan and biggan_deep.
"""

from unseg_jax import default_config

NETWORKS = ("sagan", "sngan", "biggan", "contragan", "biggan_deep")


def get_config(network="sagan"):
  """Returns the paper's settings, with normal latents that are not truncated."""
  network = default_config.choose(network, NETWORKS)
  return default_config.for_own(f"studiogan-{network}", "studiogan")
