"""From latents to candidates: images, their masks, and every filter's verdict, on the device.

Candidate `i` of a stream is a pure function of the stream's key and `i`, and, by the rule `std`, of
the chunk around it. The accepted candidates become the data set (arXiv 2105.08127, section 3.2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Key, Num
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import Generator, sample_at, with_dtype
from unseg_jax.runtime import parallel, settings
from unseg_jax.synthesis import filters
from unseg_jax.synthesis import masks as mask_rules

# Those filters that 0 turns off.
OPTIONAL_FILTERS = ("components", "histogram_maxima", "roundness", "agreement")
# The settings of `config.generate` that decide what a candidate is, and whether it is kept.
SETTINGS = (
  "shift",
  "rule",
  "invert",
  "area",
  "histogram_bins",
  *OPTIONAL_FILTERS,
  "dtype",
  "chunk",
)


def check_config(config: ml_collections.ConfigDict, directions: int) -> None:
  """Raises a ValueError for settings of `config.generate` that make no sense.

  Args:
    config: `config.generate` of an experiment.
    directions: 1 (light) or 2 (light and dark).
  """
  low, high = config.area
  if not 0 <= low <= high <= 1:
    raise InvalidValue(f"config.generate.area={config.area}: expected 0 <= low <= high <= 1")
  settings.check_counts("generate", config, "histogram_bins")
  if config.rule not in mask_rules.MASK_RULES:
    raise InvalidValue(
      f"config.generate.rule={config.rule!r}: expected one of {list(mask_rules.MASK_RULES)}"
    )
  if not 0 <= config.agreement <= 1:
    raise InvalidValue(
      f"config.generate.agreement={config.agreement}: expected a share of pixels within [0, 1]"
    )
  if config.agreement and directions != 2:
    raise InvalidValue(
      f"config.generate.agreement={config.agreement} compares the masks of two directions; set "
      "config.search.directions=2, or the agreement to 0"
    )


def make_masks(
  images: Float[AnyArray, "n h w 3"],
  shifted: Float[AnyArray, "k n h w 3"],
  config: ml_collections.ConfigDict,
) -> Bool[Array, "n h w"]:
  """Applies the mask rule, and keeps large components where the config says so.

  Args:
    images: float32 in [-1, 1].
    shifted: as for `mask_and_filters`.
    config: `config.generate` of an experiment.
  """
  light = shifted[0]
  if len(shifted) == 1:
    return _tidy(mask_rules.difference_mask(images, light, config.rule, config.invert), config)
  pair = (shifted[1], light) if config.invert else (light, shifted[1])
  return _tidy(mask_rules.dual_mask(*pair), config)


def mask_and_filters(
  images: Float[AnyArray, "n h w 3"],
  shifted: Float[AnyArray, "k n h w 3"],
  config: ml_collections.ConfigDict,
) -> tuple[Bool[Array, "n h w"], dict[str, Bool[Array, " n"]]]:
  """Applies the mask rule and every filter that the config switches on.

  Args:
    images: float32 in [-1, 1].
    shifted: the same latents' images after the shift along each of K directions: `light`, or
      `light` and `dark`.
    config: `config.generate` of an experiment.

  Returns:
    Masks, and each filter's verdict by its name.
  """
  light, masks = shifted[0], make_masks(images, shifted, config)
  verdicts = {"area": filters.area_accepted(masks, *config.area)}
  if config.histogram_maxima:
    verdicts["histogram"] = filters.histogram_accepted(
      light, bins=config.histogram_bins, minimum_maxima=config.histogram_maxima
    )
  if config.roundness:
    verdicts["roundness"] = filters.roundness_accepted(masks, config.roundness)
  if len(shifted) == 2 and config.agreement:
    verdicts["agreement"] = _agreement(images, shifted, config) >= config.agreement
  return masks, verdicts


def filter_numbers(
  masks: Bool[AnyArray, "n h w"],
  images: Float[AnyArray, "n h w 3"],
  shifted: Float[AnyArray, "k n h w 3"],
  config: ml_collections.ConfigDict,
) -> dict[str, Num[Array, " n"]]:
  """Measures what the filters decide by, of those that the config switches off, too.

  Args:
    masks: of `mask_and_filters`.
    images: as for `mask_and_filters`.
    shifted: as for `mask_and_filters`.
    config: `config.generate` of an experiment.

  Returns:
    By the name of the filter: `area` as a fraction of the picture, `histogram` as the
    number of its maxima, `roundness` as `area / perimeter^2`, and with two directions `agreement`
    as a fraction of the pixels.
  """
  numbers = {
    "area": filters.area_fraction(masks),
    "histogram": filters.histogram_maxima(shifted[0], config.histogram_bins),
    "roundness": filters.roundness(masks),
  }
  if len(shifted) == 2:
    numbers["agreement"] = _agreement(images, shifted, config)
  return numbers


def _agreement(images: AnyArray, shifted: AnyArray, config: ml_collections.ConfigDict) -> Array:
  """How far the masks that `light` and `dark` make alone agree, `[N]` in [0, 1]."""
  by_light, by_dark = (
    _tidy(mask_rules.difference_mask(images, moved, config.rule, invert), config)
    for moved, invert in zip(shifted, (config.invert, not config.invert), strict=True)
  )
  return filters.agreement(by_light, by_dark)


def _tidy(masks: Array, config: ml_collections.ConfigDict) -> Array:
  return mask_rules.keep_large_components(masks, config.components) if config.components else masks


def make_candidates(
  generator: Generator, config: ml_collections.ConfigDict
) -> Callable[..., dict[str, Any]]:
  """Returns the function of (variables, directions, key, indices) that computes a chunk.

  `directions` is `[K, *latent_shape]`, of `light` or of `light` and `dark`; `indices` is `[chunk]`.
  A last argument, latents `[chunk, *latent_shape]`, replaces draws from the generator's own prior;
  noise of `config.latent_noise` is then added to them.

  The result holds `image` `[chunk, H, W, 3]` uint8, `mask` `[chunk, H, W]` bool, `label` `[chunk]`,
  and `verdicts`: each filter's, and `all`, `[chunk]` bool.
  """

  def candidates(variables, directions, key, indices, file_latents=None):
    latents, labels = sample_at(generator, key, indices)
    if file_latents is not None:
      latents = file_latents + config.latent_noise * _noise(key, indices, file_latents.shape[1:])
    images = generator.generate(variables, latents, labels)
    shifted = jnp.stack(
      [
        generator.generate(variables, latents + config.shift * direction[None], labels)
        for direction in directions
      ]
    )
    masks, verdicts = mask_and_filters(images, shifted, config)
    everything = jnp.all(jnp.stack(list(verdicts.values())), axis=0)
    pixels = jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
    return {
      "image": pixels,
      "mask": masks,
      "label": labels,
      "verdicts": verdicts | {"all": everything},
    }

  return candidates


def first_masks(
  generator: Generator, config: ml_collections.ConfigDict, key: Key[Array, ""], count: int
) -> Callable[
  [Float[np.ndarray, " k *latent_shape"]],
  tuple[Bool[np.ndarray, "n h w"], Bool[np.ndarray, " n"]],
]:
  """Returns the function of directions that makes the first masks of a stream, compiled once.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    key: the stream's.
    count: how many masks, rounded up to whole chunks.

  Returns:
    The function of `light`, or of `light` and `dark`, that gives the masks, and whether all filters
    accept them.
  """
  generator = with_dtype(generator, config.dtype)
  compute = parallel.pmap_local(make_candidates(generator, config))
  variables, keys = parallel.replicate((generator.variables, key))
  kept = -(-count // config.chunk) * config.chunk  # On any number of devices.
  per_call = config.chunk * parallel.local_device_count()

  def make(directions):
    directions = parallel.replicate(directions)
    indices = (np.arange(start, start + per_call) for start in range(0, kept, per_call))
    calls = (
      compute(variables, directions, keys, own)
      for own in parallel.ahead(map(parallel.shard, indices))
    )
    chunks = [parallel.unshard(call) for call in calls]
    masks = np.concatenate([chunk["mask"] for chunk in chunks])[:kept]
    return masks, np.concatenate([chunk["verdicts"]["all"] for chunk in chunks])[:kept]

  return make


def _noise(key: jax.Array, indices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  # A stream of its own, apart from the candidates' latents and labels.
  noise_key = jax.random.fold_in(jax.random.split(key)[1], 0)
  keys = jax.vmap(lambda i: jax.random.fold_in(noise_key, i))(indices)
  return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
