"""Every setting, with the paper's value (arXiv 2105.08127). Config files change some of them."""

import functools
import logging
import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from unseg_jax.artifacts.renamed_settings import announce
from unseg_jax.errors import InvalidValue

# Stands for bfloat16 on accelerators and for float32 on CPUs.
AUTO = "auto"
# The stages that have the setting `dtype`.
TYPED = ("search", "generate", "train")

# An example of each tuple. Except for `generate.area`, its first element stands for any number.
_TUPLES: dict[str, tuple] = {
  "generate.area": (0.05, 0.5),
  "train.features": (16, 32, 64),
  "train.copy_paste.kinds": ("plain", "blurred"),
  "train.data_sets": (("runs/birds", 1.0),),
  "evaluate.benchmarks": ("cub",),
  "evaluate.folders": (("birds", "birds/pictures", "birds/masks", True),),
  "evaluate.tfds": (("pets", "oxford_iiit_pet", "test", "image", "segmentation_mask", False),),
  "report.pictures": ("photos/*.jpg",),
}
log = logging.getLogger(__name__)

_renamed = functools.partial(announce, "train")


class TrainConfig(ml_collections.ConfigDict):
  """The section `config.train`. Former names of its settings still work."""

  def __getitem__(self, key: str) -> Any:
    return super().__getitem__(_renamed(key))

  def __setitem__(self, key: str, value: Any) -> None:
    super().__setitem__(_renamed(key), value)

  def __contains__(self, key: object) -> bool:
    return super().__contains__(_renamed(key))

  def get_type(self, key: str) -> type:
    """Returns the type of a setting, which command-line flags need to parse its value."""
    return super().get_type(_renamed(key))

  def update(self, *settings: Mapping[str, Any], **more: Any) -> None:
    """Sets several settings."""
    for each in (*settings, more):
      super().update({_renamed(key): value for key, value in each.items()})


def get_config() -> ml_collections.ConfigDict:
  """Returns the paper's settings, which a config file adapts to its experiment.

  The config is locked: a misspelt setting raises an error instead of adding one. Only
  `generator_options` and `evaluate.reference` accept new names.

  The comments are the documentation: the one on a setting's line, or those right above it, become
  its row in docs/reference/settings.md.
  """
  config = ml_collections.ConfigDict()
  config.name = "unnamed"  # Name of the experiment. Results go to `runs/NAME`.
  # A generator file, `pretrained:NAME`, or `package.module:function` that returns a `Generator`.
  config.generator = ""
  # Options for loading the generator, such as `truncation`. They depend on its architecture.
  config.generator_options = ml_collections.ConfigDict()
  # Shown when the generator file is missing: the command that makes it. With `train.data_sets`, one
  # command per line; a missing run shows the command that contains its `--workdir`.
  config.convert_command = ""
  config.seed = 0  # Seed of all random numbers.
  # Evaluates this segmenter instead of training one: the workdir of a run, or a converted U-Net.
  config.segmenter = ""
  config.data_root = ""  # Folder of the benchmarks, and of prepared TFDS data sets.

  # Searches for the direction in latent space that lights the foreground.
  config.search = search = ml_collections.ConfigDict()
  search.steps = 300  # Number of optimiser steps.
  search.batch_size = 32  # Images per step, over all devices.
  search.microbatch = 0  # Images per device at once, which limits memory. 0: no limit.
  search.learning_rate = 5e-3  # Learning rate of Adam.
  search.directions = 1  # 1: light. 2: light and dark; masks then compare the two images.
  search.restarts = 1  # Independent searches, run together. The one with the lowest loss is kept.
  # Weight of the loss that lights the centre and darkens the border. Negative: the opposite. The
  # dark direction uses the negated weight.
  search.circle_weight = 2.0
  search.sobel_weight = 10.0  # Weight of the loss that keeps edges in place.
  search.save_every = 50  # Steps between saved states, from which an interrupted search resumes.
  # Type in which the generator computes: "float32", "bfloat16", or "auto", which is bfloat16 on
  # accelerators and float32 on CPUs.
  search.dtype = "float32"

  # Generates image-mask pairs, filters them and writes them as a data set.
  config.generate = generate = ml_collections.ConfigDict()
  generate.num_images = ml_collections.ConfigDict()
  # Number of training pairs. 0: pairs are generated during training and not stored.
  generate.num_images.train = 1_000_000
  generate.num_images.validation = 1_000  # Number of validation pairs.
  generate.num_images.test = 1_000  # Number of test pairs.
  generate.shift = 5.0  # Distance that latents move along the direction.
  # "lighting": pixels that become lighter are foreground. "std": a pixel may also become darker, by
  # up to 0.3 standard deviations.
  generate.rule = "lighting"
  # Swaps the two images that a mask compares, for a direction that darkens the foreground.
  generate.invert = False
  # Keeps components larger than this fraction of the largest one. 0: keeps all.
  generate.components = 0.2
  generate.area = (0.0, 0.5)  # Accepted range for the fraction of foreground pixels.
  generate.histogram_bins = 12  # Number of bins in the histogram of the shifted image.
  generate.histogram_maxima = 2  # Minimum number of local maxima in that histogram. 0: no filter.
  # Minimum area / perimeter² of the largest component, which must also cover 5% to 90% of the
  # image. 0: no filter.
  generate.roundness = 0.0
  # Minimum fraction of pixels on which the masks of light and dark agree. 0: no filter.
  generate.agreement = 0.0
  # A `.npy` file of latents, [n, dim]. Empty: latents are sampled from the generator's prior.
  generate.latents = ""
  generate.latent_noise = 0.0  # Standard deviation of the noise added to latents from a file.
  # Type in which the generator computes: "float32", "bfloat16" or "auto", as in `search.dtype`.
  generate.dtype = "float32"
  # Minimum fraction of candidates that pass the filters. Below it, the run stops with an error.
  generate.minimum_acceptance = 0.01
  generate.chunk = 64  # Candidates per device at once.
  generate.shard_candidates = 16_384  # Candidates per shard, the unit of resuming.

  # Trains the segmenter, a U-Net, on the pairs.
  config.train = train = TrainConfig()
  train.features = (64, 128, 256, 512, 512)  # Channels of each U-Net level, from full resolution.
  train.image_size = 128  # Side of the square training images, in pixels.
  train.steps = 18_000  # Number of optimiser steps.
  train.batch_size = 128  # Pairs per step, over all devices.
  train.learning_rate = 1e-3  # Initial learning rate of Adam.
  # "staircase": multiplies the learning rate by `decay` every `decay_every` steps. "cosine": decays
  # it to 0.
  train.schedule = "staircase"
  train.decay = 0.2  # Factor of the staircase schedule.
  train.decay_every = 8_000  # Steps between decays of the staircase schedule.
  # Weight of the loss 1 - soft IoU of the foreground, which is added to the cross-entropy.
  train.iou_weight = 0.0
  train.augment = False  # Applies random flips, crops, colour changes and blur.
  # Pastes foregrounds onto other backgrounds.
  train.copy_paste = copy_paste = ml_collections.ConfigDict()
  copy_paste.share = 0.0  # Fraction of pairs that get another background.
  # Kinds of background to draw from. A kind that is listed twice is drawn twice as often.
  copy_paste.kinds = ("plain", "gradient", "noise", "generated", "blurred")
  # Type in which the U-Net computes: "float32", "bfloat16" or "auto", as in `search.dtype`.
  train.dtype = "float32"
  train.log_every = 20  # Steps between logged losses.
  train.checkpoint_every = 1_000  # Steps between checkpoints, each of which is validated.
  # Finished runs whose data sets are mixed for training, as (workdir, weight). Empty: the data set
  # of this run.
  train.data_sets = ()

  # Continues training on unlabelled images, with masks from the segmenter itself.
  config.adapt = adapt = ml_collections.ConfigDict()
  # A file, folder, glob, or `tfds:NAME:SPLIT:IMAGE_KEY`. Empty: the stage is skipped.
  adapt.images = ""
  adapt.rounds = 1  # Number of rounds. Each one labels the images with the latest segmenter.
  adapt.steps = 500  # Number of optimiser steps per round.
  adapt.share = 0.5  # Fraction of these images in each batch. Synthetic pairs fill the rest.
  # Minimum confidence of an image to learn from: the mean of |2p - 1| over its pixels.
  adapt.confidence = 0.6
  # Fits masks to image edges before training: "grabcut" or "guided", both by OpenCV, or "none".
  adapt.refine = "grabcut"
  adapt.learning_rate = 1e-3  # Initial learning rate of each round.

  # Scores the segmenter on synthetic test pairs and on labelled images. The network sees images
  # resized as in training; masks keep their size.
  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.benchmarks = ()  # Benchmarks by name: cub, flowers, dut_omron, duts, ecssd.
  # Labelled images in folders: (name, folder of images, folder of masks, crop to the central
  # square).
  evaluate.folders = ()
  # Prepared TFDS data sets: (name, TFDS name, split, image key, mask key, crop to the central
  # square).
  evaluate.tfds = ()
  evaluate.batch_size = 8  # Images per device at once.
  # Adds MAE, S-measure, E-measure and weighted F-measure, computed by pysodmetrics.
  evaluate.saliency = False
  # Fits masks to image edges: "guided" or "grabcut", both by OpenCV, or "none".
  evaluate.refine = "none"
  # Averages predictions over the image and its mirror image, each at 0.75, 1 and 1.5 times its
  # size.
  evaluate.average = False
  # Published numbers to print beside the results: {data set: {metric: number}}.
  evaluate.reference = ml_collections.ConfigDict()

  # Writes an HTML page about the run.
  config.report = report = ml_collections.ConfigDict()
  report.samples = 24  # Number of synthetic pairs to show.
  # Images to segment and show: files, folders, globs, or `example:NAME` for a bundled example.
  report.pictures = ()

  config.lock()
  for open_section in (config.generator_options, evaluate.reference):
    open_section.unlock()
  return config


def for_published(variant: str) -> ml_collections.ConfigDict:
  """Returns the paper's settings for a published generator, a `--variant` of `convert.py`."""
  return _for_converted(variant, f"--variant={variant}")


def for_own(name: str, format_name: str) -> ml_collections.ConfigDict:
  """Returns the paper's settings for your own checkpoint, in a `--format` of `convert.py`."""
  return _for_converted(name, f"--format={format_name} --source=CHECKPOINT.pth")


def _for_converted(name: str, flags: str) -> ml_collections.ConfigDict:
  """Returns the paper's settings for the generator that `convert.py` makes with these flags."""
  config = get_config()
  config.name = name
  choose_types(config)
  config.generator = f"checkpoints/{name}.safetensors"
  config.convert_command = (
    f"python -m checkpoints_convert.convert {flags} --output={config.generator}"
  )
  return config


def choose_types(config: ml_collections.ConfigDict) -> None:
  """Sets `dtype` to `auto` for generation and training.

  Use it for architectures whose masks agree in float32 and bfloat16 (docs/measurements.md). The
  search stays in float32: it takes little time, and every later stage depends on its direction.
  """
  config.generate.dtype = config.train.dtype = AUTO


def with_types(
  config: ml_collections.ConfigDict, recorded: Mapping[str, str] | None = None
) -> ml_collections.ConfigDict:
  """Returns the config with every `auto` replaced by a type.

  If the workdir holds results, the type is the one that they were computed in. Otherwise, it is
  bfloat16 on accelerators, which halves memory traffic, and float32 on CPUs, where it is faster.
  Results record their type.

  Args:
    config: the config of an experiment.
    recorded: the types of the workdir's results, by stage (`stages.recorded_types`). A type that
      differs from the default of this machine is logged.
  """
  # Imported here because reading a config does not need JAX.
  from unseg_jax.runtime import parallel

  config, taken_over = config.copy_and_resolve_references(), []
  own_choice = "bfloat16" if parallel.on_accelerator() else "float32"
  for stage in TYPED:
    if config[stage].dtype == AUTO:
      config[stage].dtype = (recorded or {}).get(stage, own_choice)
      if config[stage].dtype != own_choice:
        taken_over.append(f"config.{stage}.dtype={config[stage].dtype}")
  if taken_over:
    log.info(
      "%s: taken from the results in the workdir; otherwise, auto would mean %s on this machine",
      ", ".join(taken_over),
      own_choice,
    )
  return config


def check_tuples(config: ml_collections.ConfigDict) -> None:
  """Checks the form of settings that are tuples, where a forgotten comma is a common mistake.

  Raises:
    ValueError: a setting does not have the expected form.
  """
  for name, example in _TUPLES.items():
    value = functools.reduce(lambda section, key: section[key], name.split("."), config)
    same_length = name == "generate.area"
    if not _has_form(value, example if same_length else len(value) * example[:1]):
      raise InvalidValue(
        f"config.{name}={value!r}: expected a tuple such as {example!r}; a tuple of one element "
        "also needs a comma"
      )


def _has_form(value: Any, example: Any) -> bool:
  if isinstance(example, tuple):
    return (
      isinstance(value, tuple | list)
      and len(value) == len(example)
      and all(map(_has_form, value, example))
    )
  if isinstance(example, bool) or isinstance(value, bool | np.bool_):
    return isinstance(example, bool) and isinstance(value, bool | np.bool_)
  if isinstance(example, str):
    return isinstance(value, str | os.PathLike)
  return isinstance(value, numbers.Integral if isinstance(example, int) else numbers.Real)


def choose(variant: str, known: Sequence[str]) -> str:
  """Returns the variant of a config, as in `--config=configs/FILE.py:VARIANT`, if it is known.

  Raises:
    ValueError: the variant is unknown.
  """
  if variant not in known:
    raise InvalidValue(f"config variant {variant!r}: expected one of {', '.join(known)}")
  return variant
