"""Turns latents into candidates on the device: images, masks and the verdicts of all filters.

Candidate `i` of a stream is a pure function of the stream's key and `i`. With the mask rule `std`,
it also depends on the other candidates in its chunk. The accepted candidates form the data set
(arXiv 2105.08127, section 3.2).
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

# Filters that a setting of 0 disables.
OPTIONAL_FILTERS = ("components", "histogram_maxima", "roundness", "agreement")
# Settings in `config.generate` that determine a candidate and its acceptance.
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
  """Raises a ValueError for invalid settings in `config.generate`.

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
      f"config.generate.agreement={config.agreement}: expected a fraction of pixels within [0, 1]"
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
  """Applies the mask rule, then removes small components if the config enables that.

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
  """Applies the mask rule and every filter that the config enables.

  Args:
    images: float32 in [-1, 1].
    shifted: images of the same latents, shifted along each of K directions: `light`, or `light`
      and `dark`.
    config: `config.generate` of an experiment.

  Returns:
    The masks, and the verdicts by filter name.
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
  """Computes the values that the filters compare, including those of disabled filters.

  Args:
    masks: the masks from `mask_and_filters`.
    images: as for `mask_and_filters`.
    shifted: as for `mask_and_filters`.
    config: `config.generate` of an experiment.

  Returns:
    The values by filter name: `area` as a fraction of the image, `histogram` as a number of maxima,
    `roundness` as `area / perimeter^2`, and, with two directions, `agreement` as a fraction of the
    pixels.
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
  """Returns the agreement, `[N]` in [0, 1], of the masks from `light` alone and `dark` alone."""
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

  `directions` is `[K, *latent_shape]`: `light`, or `light` and `dark`. `indices` is `[chunk]`. An
  optional last argument, latents `[chunk, *latent_shape]`, replaces samples from the generator's
  prior; noise with standard deviation `config.latent_noise` is added to these latents.

  The result holds `image` `[chunk, H, W, 3]` uint8, `mask` `[chunk, H, W]` bool, `label` `[chunk]`,
  and `verdicts`: one `[chunk]` bool array per filter, and their conjunction as `all`.
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
  """Returns the compiled function that maps directions to the first masks of a stream.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    key: the PRNG key of the stream.
    count: number of masks, rounded up to full chunks.

  Returns:
    A function of `light`, or `light` and `dark`. It returns the masks, and whether all filters
    accept them.
  """
  generator = with_dtype(generator, config.dtype)
  compute = parallel.pmap_local(make_candidates(generator, config))
  variables, keys = parallel.replicate((generator.variables, key))
  kept = -(-count // config.chunk) * config.chunk  # Independent of the number of devices.
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
  # This stream is independent of the candidates' latents and labels.
  noise_key = jax.random.fold_in(jax.random.split(key)[1], 0)
  keys = jax.vmap(lambda i: jax.random.fold_in(noise_key, i))(indices)
  return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)
