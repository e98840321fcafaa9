"""BigGAN-deep of pytorch-pretrained-biggan, the package of the published weights."""

import torch
from pytorch_pretrained_biggan import BigGAN, BigGANConfig

from checkpoints_convert import biggan_deep as biggan_deep_format
from common.published import DEEP_ATTENTION, DEEP_LATENT
from unseg_jax.generators import Generator, biggan_deep

TRUNCATION = 0.4


def network(name: str, device: str) -> BigGAN:
  """Returns a published network, such as `biggan-deep-128`, with random weights."""
  torch.manual_seed(0)
  config = BigGANConfig(
    output_dim=int(name.rpartition("-")[2]),
    layers=biggan_deep_format.VARIANTS[name].settings["layers"],
    attention_layer_position=DEEP_ATTENTION,
  )
  twin = BigGAN(config)
  with torch.no_grad():
    # The package leaves these uninitialised, or at 0.
    twin.generator.bn.weight.fill_(1)
    twin.generator.bn.bias.zero_()
    twin.generator.layers[DEEP_ATTENTION].gamma.fill_(1)
    for _ in range(3):  # In training mode, calls estimate the spectral norms.
      twin(torch.randn(1, DEEP_LATENT), torch.eye(config.num_classes)[:1], TRUNCATION)
  return twin.eval().to(device)


def converted(name: str, twin: BigGAN) -> Generator:
  """Returns this package's generator with the twin's weights."""
  arrays = {key: array.cpu().numpy() for key, array in twin.state_dict().items()}
  _, config, variables = biggan_deep_format.convert(
    arrays, biggan_deep_format.VARIANTS[name].settings
  )
  return biggan_deep.build(config | {"truncation": TRUNCATION}, variables, name)


def images(twin: BigGAN, latents: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
  """Returns images `[N, 3, S, S]` of latents `[N, 128]` and labels `[N]`."""
  classes = torch.nn.functional.one_hot(labels.long(), twin.config.num_classes).float()
  with torch.no_grad():
    return twin(latents, classes, TRUNCATION)
