"""The architectures of all published generators at full size, with random weights."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from checkpoints_convert import biggan_deep as biggan_deep_format
from checkpoints_convert import stylegan3_filters
from unseg_jax.generators import (
  ARCHITECTURES,
  Generator,
  biggan,
  biggan_deep,
  selfcond,
  style_latents,
  stylegan2,
  stylegan3,
)

# DEEP_ATTENTION is the position of the attention among the layers.
DEEP_WIDTH, DEEP_LATENT, DEEP_ATTENTION = 128, 128, 8


def deep(size: int) -> dict[str, Any]:
  """Returns the config of Hugging Face's BigGAN-deep, with folded statistics."""
  blocks = biggan_deep_format.VARIANTS[f"biggan-deep-{size}"].settings["layers"]
  layers = [["up" if up else "same", DEEP_WIDTH * out] for up, _, out in blocks]
  layers.insert(DEEP_ATTENTION, ["attention", DEEP_WIDTH * blocks[DEEP_ATTENTION][1]])
  return {
    "latent_size": DEEP_LATENT,
    "num_classes": 1000,
    "class_size": DEEP_LATENT,
    "bottom_features": DEEP_WIDTH * blocks[0][1],
    "layers": layers,
    "truncation": None,
  }


def style(size: int) -> dict[str, Any]:
  """Returns the config of NVIDIA's unconditional StyleGAN2."""
  resolutions = [4 * 2**i for i in range(size.bit_length() - 2)]
  return {
    "z_dim": 512,
    "mapping_widths": [512] * 8,
    "num_classes": 0,
    "class_features": 0,
    "channels": [min(32768 // resolution, 512) for resolution in resolutions],
    "clamp": 256,
    "truncation_psi": 0.5,
    "truncation_cutoff": 8,
    "noise": "const",
  }


# NVIDIA's StyleGAN3 by configuration: (kernel size, maximum number of channels).
STYLE3_KINDS = {"t": (3, 512), "r": (1, 1024)}
STYLE3_LAYERS, STYLE3_CRITICAL, STYLE3_MARGIN = 14, 2, 10
STYLE3_SMALL = 256  # Published networks of this size have half as many channels per frequency.


def style3(kind: str, size: int) -> dict[str, Any]:
  """Returns the config of NVIDIA's unconditional StyleGAN3."""
  kernel_size, most = STYLE3_KINDS[kind]
  base = (32 if size <= STYLE3_SMALL else 64) * most
  bands = {"num_critical": STYLE3_CRITICAL, "first_cutoff": 2, "first_stopband": 2**2.1}
  bands = stylegan3_filters.find_bands(STYLE3_LAYERS, size, bands | {"last_stopband_rel": 2**0.3})
  sizes = [band.rate + 2 * STYLE3_MARGIN for band in bands[:-2]] + [size]
  channels = [round(min(base / 2 / band.cutoff, most)) for band in bands[:-1]]
  activations = []
  around = zip([bands[0], *bands], bands, [sizes[0], *sizes], sizes, strict=False)
  for i, (before, after, size_in, size_out) in enumerate(around):
    is_radial = kind == "r" and i < STYLE3_LAYERS - STYLE3_CRITICAL
    design = stylegan3_filters.design(before, after, 6, 2, is_radial)
    rank = stylegan3_filters.decompose(design.down_filter).shape[1]
    activations.append(design.geometry(size_in + kernel_size - 1, size_out, rank))
  return {
    "z_dim": 512,
    "mapping_widths": [512] * 2,
    "num_classes": 0,
    "class_features": 0,
    "features": {
      "channels": channels[0],
      "size": sizes[0],
      "rate": bands[0].rate,
      "bandwidth": bands[0].cutoff,
    },
    "channels": channels,
    "kernel_size": kernel_size,
    "activations": activations,
    "clamp": 256,
    "output_scale": 0.25,
    "truncation_psi": 0.5,
    "truncation_cutoff": 8,
  }


BIGGAN = {"widths": [1536, 1536, 768, 384, 192, 96], "latent_size": 120, "attention": [3]}
RESNET = {"widths": [1024, 1024, 512, 256, 128, 64], "latent_size": 128, "hierarchical": False}
# Name -> (architecture, its config, the config file of its experiment).
GENERATORS = {
  **{f"biggan-deep-{s}": ("biggan_deep", deep(s), f"biggan.py:{s}") for s in (128, 256, 512)},
  "bigbigan-128": (
    "biggan",
    BIGGAN | {"num_classes": None, "shared_size": None, "hierarchical": True},
    "bigbigan.py",
  ),
  "biggan-128": (
    "biggan",
    BIGGAN | {"num_classes": 1000, "shared_size": 128, "hierarchical": True},
    "bigbigan.py",
  ),
  "studiogan-sagan": (
    "biggan",
    RESNET | {"num_classes": 1000, "shared_size": None, "attention": [3]},
    "studiogan.py:sagan",
  ),
  "studiogan-sngan": (
    "biggan",
    RESNET | {"num_classes": 1000, "shared_size": None, "attention": []},
    "studiogan.py:sngan",
  ),
  "selfcondgan": (
    "selfcond",
    {
      "latent_size": 256,
      "size": 4,
      "widths": [1024, 1024, 512, 256, 128, 64],
      "num_classes": 100,
      "embedding_size": 256,
    },
    "selfcond.py",
  ),
  **{
    f"stylegan2-{size}": ("stylegan2", style(size), f"stylegan2.py:{data_set}")
    for size, data_set in ((512, "afhqcat"), (1024, "ffhq"))
  },
  **{
    f"stylegan3-{kind}-{size}": ("stylegan3", style3(kind, size), f"stylegan3.py:{kind}-{data_set}")
    for kind in STYLE3_KINDS
    for size, data_set in ((256, "ffhqu-256"), (1024, "ffhq"))
  },
}


def divided(features: Sequence[int], divisor: int) -> tuple[int, ...]:
  """Divides the channels of each layer."""
  return tuple(width // divisor for width in features)


def random_generator(architecture: str, config: dict[str, Any]) -> Generator:
  """Returns a full-size generator with random weights."""
  latents, labels = jnp.zeros((1, config.get("latent_size", 0))), jnp.zeros((1,), jnp.int32)

  def init(module: Any, *inputs: jax.Array) -> dict[str, Any]:
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    generator = np.random.default_rng(0)

    def fill(leaf):
      fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 1
      return (generator.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(
        np.float32
      )

    return jax.tree.map(fill, shapes)

  if architecture == "biggan_deep":
    attributes = ("num_classes", "class_size", "bottom_features")
    module = biggan_deep.BigGanDeep(
      **{name: config[name] for name in attributes}, layers=tuple(map(tuple, config["layers"]))
    )
    variables = init(module, latents, labels)
  elif architecture == "biggan":
    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    del attributes["latent_size"]
    attributes["features"] = attributes.pop("widths")
    variables = init(biggan.BigGan(**attributes), latents, labels)
  elif architecture == "selfcond":
    module = selfcond.SelfConditionedGenerator(
      tuple(config["widths"]), config["size"], config["num_classes"], config["embedding_size"]
    )
    variables = init(module, latents, labels)
  else:
    is_third = architecture == "stylegan3"
    num_ws = len(config["channels"]) + 2 if is_third else 2 * len(config["channels"])
    mapping = style_latents.Mapping(tuple(config["mapping_widths"]), num_ws)
    synthesis = (
      stylegan3.make_synthesis(config)
      if is_third
      else stylegan2.Synthesis(tuple(config["channels"]), config["clamp"])
    )
    variables = {
      "params": {
        "mapping": init(mapping, jnp.zeros((1, config["z_dim"])), labels)["params"],
        "synthesis": init(synthesis, jnp.zeros((1, num_ws, 512)))["params"],
      }
    }
  return ARCHITECTURES[architecture].build(config, variables, "random")
