"""What all experiments share: every setting, with the paper's values (arXiv 2105.08127)."""

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

# In place of a type to compute in: bfloat16 on accelerators, float32 on CPUs.
AUTO = "auto"
# The stages that have such a type.
TYPED = ("search", "generate", "train")

# What the tuples hold. Where the numbers of elements may differ, one stands for all.
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
  """`config.train`, whose settings can also be read and set by their former names."""

  def __getitem__(self, key: str) -> Any:
    return super().__getitem__(_renamed(key))

  def __setitem__(self, key: str, value: Any) -> None:
    super().__setitem__(_renamed(key), value)

  def __contains__(self, key: object) -> bool:
    return super().__contains__(_renamed(key))

  def get_type(self, key: str) -> type:
    """The type of a setting; command lines ask for it before they set one."""
    return super().get_type(_renamed(key))

  def update(self, *settings: Mapping[str, Any], **more: Any) -> None:
    """Sets several settings."""
    for each in (*settings, more):
      super().update({_renamed(key): value for key, value in each.items()})


def get_config() -> ml_collections.ConfigDict:
  """The paper's settings; an experiment changes what it must."""
  config = ml_collections.ConfigDict()
  config.name = "unnamed"  # Results go to runs/<name>.
  # A converted file, `pretrained:NAME`, or `package.module:function` that returns a Generator.
  config.generator = ""
  # What the generator leaves to choose when it is loaded, such as a truncation.
  config.generator_options = ml_collections.ConfigDict()
  # Makes the generator's file, or the runs of train.data_sets, a line for each --workdir; an error
  # names it if that is missing.
  config.convert_command = ""
  config.seed = 0
  # A run's workdir, or a converted U-Net, to evaluate in place of training one.
  config.segmenter = ""

  config.search = search = ml_collections.ConfigDict()
  search.steps = 300
  search.batch_size = 32
  search.microbatch = 0  # Images that a device computes at once, to save memory; 0: its share.
  search.learning_rate = 5e-3
  search.directions = 1  # 1: light; 2: light and dark, whose pictures are then compared.
  search.restarts = 1  # Searches from different starts at once; the one of the lowest loss is kept.
  search.circle_weight = 2.0  # Of `light`: light middle, dark surround; negative: the opposite.
  search.sobel_weight = 10.0
  search.save_every = 50
  search.dtype = "float32"  # What the generator computes in; or "bfloat16", or "auto".

  config.generate = generate = ml_collections.ConfigDict()
  generate.num_images = ml_collections.ConfigDict()
  generate.num_images.train = 1_000_000  # 0: made on the fly while the segmenter trains.
  generate.num_images.validation = 1_000
  generate.num_images.test = 1_000
  generate.shift = 5.0
  generate.rule = "lighting"  # Or "std".
  generate.invert = False
  generate.components = 0.2  # Keep components above this share of the largest one; 0: keep all.
  generate.area = (0.0, 0.5)  # Accepted share of foreground.
  generate.histogram_bins = 12
  generate.histogram_maxima = 2  # Fewest local maxima of the histogram; 0: no such filter.
  generate.roundness = 0.0  # Least area / perimeter^2 of the largest component; 0: no such filter.
  generate.agreement = 0.0  # Least share of pixels on which `light` and `dark` agree; 0: no filter.
  generate.latents = ""  # A .npy file [n, dim] to take the latents from; "": the generator's prior.
  generate.latent_noise = 0.0  # Standard deviation of the noise added to them.
  generate.dtype = "float32"  # What the generator computes in; or "bfloat16", or "auto".
  generate.minimum_acceptance = 0.01  # Below this share of accepted candidates, stop.
  generate.chunk = 64  # Candidates that a device computes at a time.
  generate.shard_candidates = 16_384

  config.train = train = TrainConfig()
  train.features = (64, 128, 256, 512, 512)
  train.image_size = 128
  train.steps = 18_000
  train.batch_size = 128
  train.learning_rate = 1e-3
  train.schedule = "staircase"  # Times `decay` every `decay_every` steps; or "cosine", down to 0.
  train.decay = 0.2
  train.decay_every = 8_000
  train.iou_weight = 0.0  # Weight of 1 - soft IoU of the foreground, beside the cross-entropy.
  train.augment = False  # Flips, crops, colour and blur.
  train.copy_paste = copy_paste = ml_collections.ConfigDict()
  copy_paste.share = 0.0  # Share of the pairs whose foreground is put before another background.
  copy_paste.kinds = ("plain", "gradient", "noise", "generated", "blurred")  # As likely as often.
  train.dtype = "float32"  # What the U-Net computes in; or "bfloat16", or "auto".
  train.log_every = 20
  train.checkpoint_every = 1_000

  # Finished runs whose sets are mixed to train on: (workdir, weight); (): this run's own set.
  train.data_sets = ()

  # Going on with pictures without labels, by the segmenter's own masks of them.
  config.adapt = adapt = ml_collections.ConfigDict()
  adapt.images = ""  # A file, folder or glob, or `tfds:NAME:SPLIT:KEY OF THE IMAGE`; "": no stage.
  adapt.rounds = 1  # In each, the latest segmenter labels the pictures anew.
  adapt.steps = 500
  adapt.share = 0.5  # Of each batch; the rest are synthetic pairs.
  adapt.confidence = 0.6  # Least mean of |2 p - 1| over the pixels of a picture to learn from.
  # Its masks are first cut along the picture's own colours, by OpenCV; or "guided", or "none".
  adapt.refine = "grabcut"
  adapt.learning_rate = 1e-3

  # What to evaluate on. Each picture's shorter side is resized as in training; masks keep theirs.
  config.data_root = ""  # Holds the benchmarks, in the original folders or prepared by TFDS.
  config.evaluate = evaluate = ml_collections.ConfigDict()
  evaluate.benchmarks = ()  # Names of evaluation/benchmarks.py, such as duts.
  # Real pictures: (name, folder of pictures, folder of masks, whether to crop the central square).
  evaluate.folders = ()
  # Prepared TFDS data sets: (name, TFDS name, split, key of the image, key of the mask, crop).
  evaluate.tfds = ()
  evaluate.batch_size = 8
  evaluate.saliency = False  # Also MAE, S-measure, E-measure and weighted F, by pysodmetrics.
  evaluate.refine = "none"  # "guided", "grabcut": fit the masks to the pictures' edges, by OpenCV.
  evaluate.average = False  # Over each picture's mirror image, at 0.75, 1 and 1.5 times its size.
  evaluate.reference = ml_collections.ConfigDict()  # Published numbers: {name: {metric: number}}.

  config.report = report = ml_collections.ConfigDict()
  report.samples = 24
  report.pictures = ()  # Files, folders, globs, or `example:NAME` of the package's examples.
  return config


def for_published(variant: str) -> ml_collections.ConfigDict:
  """The paper's settings with the published generator that `convert.py --variant` knows."""
  return _for_converted(variant, f"--variant={variant}")


def for_own(name: str, format_name: str) -> ml_collections.ConfigDict:
  """The paper's settings with a checkpoint of one's own that `convert.py --format` reads."""
  return _for_converted(name, f"--format={format_name} --source=CHECKPOINT.pth")


def _for_converted(name: str, flags: str) -> ml_collections.ConfigDict:
  """The paper's settings with the generator that `convert.py` makes by these flags."""
  config = get_config()
  config.name = name
  choose_types(config)
  config.generator = f"checkpoints/{name}.safetensors"
  config.convert_command = (
    f"python -m checkpoints_convert.convert {flags} --output={config.generator}"
  )
  return config


def choose_types(config: ml_collections.ConfigDict) -> None:
  """Lets the machine decide what makes pairs and trains on them computes in.

  For architectures whose masks are measured to agree in both types (docs/measurements.md). The
  search stays in float32: it takes little of the time, and everything else hangs on its direction.
  """
  config.generate.dtype = config.train.dtype = AUTO


def with_types(
  config: ml_collections.ConfigDict, recorded: Mapping[str, str] | None = None
) -> ml_collections.ConfigDict:
  """Returns the config with the type to compute in named wherever it says `auto`.

  That is the type that the workdir's results were made in, if there are any. Else it is bfloat16 on
  accelerators, which move half of the bytes for it, and float32 on CPUs, where it is the faster
  one. A run's results remember what it was.

  Args:
    config: an experiment's.
    recorded: the workdir's types, by stage (`stages.recorded_types`); one that differs from this
      machine's choice is announced.
  """
  # Imported here: to read a config needs no JAX.
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
      "%s: taken over from the workdir; without its results, auto would mean %s on this machine",
      ", ".join(taken_over),
      own_choice,
    )
  return config


def check_tuples(config: ml_collections.ConfigDict) -> None:
  """Checks the form of settings that are tuples, in which a comma is easily forgotten.

  Raises:
    ValueError: one does not have the form that is expected.
  """
  for name, example in _TUPLES.items():
    value = functools.reduce(lambda section, key: section[key], name.split("."), config)
    same_length = name == "generate.area"
    if not _has_form(value, example if same_length else len(value) * example[:1]):
      raise InvalidValue(
        f"config.{name}={value!r}: expected a tuple such as {example!r}; one of a single element "
        "needs its comma, too"
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
  """Returns the variant that a config was asked for, as in `--config=configs/FILE.py:VARIANT`.

  Raises:
    ValueError: the variant is unknown.
  """
  if variant not in known:
    raise InvalidValue(f"config variant {variant!r}: expected one of {', '.join(known)}")
  return variant
