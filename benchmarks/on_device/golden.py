"""Compares this device's results with those of the original implementations in tests/golden.

In float32 at precision `highest`, results must be within the tolerances of the tests. The same
programs then run at the backend's default precision and in bfloat16, and their differences are
reported. Several programs are compiled in parallel, since compiling takes most of the time.
"""

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common import cases
from on_device import golden_unet_step
from on_device.rows import Report, require
from unseg_jax import default_config, generators
from unseg_jax.direction import losses
from unseg_jax.direction import step as search_step
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.runtime import parallel
from unseg_jax.segmentation.unet import Unet
from unseg_jax.synthesis import filters, masks

FACES = "pretrained:dcgan_faces"
# Alternative computation -> type and precision.
DEPARTURES = {"default precision": ("float32", None), "bfloat16": ("bfloat16", None)}


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of tests/golden.

  Attributes:
    file: its file name, without suffix.
    format: the module of `checkpoints_convert` that reads it.
    tolerance: the tolerance of the tests.
    chosen: the settings in the file that the converter takes; None: all.
    others: additional settings.
    latents: name of the array of latents.
    images: name of the array of images.
  """

  file: str
  format: str
  tolerance: float
  chosen: Sequence[str] | None = ()
  others: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  latents: str = "z"
  images: str = "image"


EPSILONS = ("BN_eps", "SN_eps")
NETWORKS = {
  "dcgan": Network("dcgan", "dcgan", 1e-5),
  "biggan": Network("biggan", "biggan", 2e-5, EPSILONS),
  "bigbigan": Network(
    "biggan", "biggan", 2e-5, EPSILONS, {"unconditional": True}, images="image_label0"
  ),
  "biggan_deep": Network("biggan_deep", "biggan_deep", 1e-5, None),
  "studiogan_sagan": Network("studiogan_sagan", "studiogan", 2e-5, None),
  "studiogan_sngan": Network("studiogan_sngan", "studiogan", 2e-5, None),
  "studiogan_big_resnet": Network("studiogan_big_resnet", "studiogan", 2e-5, None),
  "studiogan_big_resnet_deep": Network("studiogan_big_resnet_deep", "studiogan", 1e-5, None),
  "selfcond": Network("selfcond", "selfcond", 1e-5),
  "uncond": Network("uncond", "selfcond", 1e-5),
  "stylegan2": Network("stylegan2", "stylegan2", 5e-5, latents="w_truncated"),
  "stylegan3_t": Network("stylegan3_t", "stylegan3", 2e-5, latents="w_truncated"),
  "stylegan3_r": Network("stylegan3_r", "stylegan3", 2e-5, latents="w_truncated"),
}
SMALL_NETWORKS = ("dcgan", "biggan", "biggan_deep", "selfcond", "stylegan2")  # The architectures.
SMALL_DEPARTURES = ("dcgan",)
SEARCH_STEPS = 3
UNET_SIZES = ("64x64", "128x171", "100x75")


def run(report: Report, smoke: bool) -> None:
  """Writes the difference of every result from the golden one."""
  work = {
    "losses": functools.partial(compare_losses, report),
    "masks": functools.partial(compare_masks, report),
    "filters": functools.partial(compare_filters, report),
    "search": functools.partial(compare_search, report, smoke),
    "logits of the U-Net": functools.partial(compare_unet, report, smoke),
    "training step": functools.partial(golden_unet_step.compare, report, smoke),
  }
  for name in SMALL_NETWORKS if smoke else NETWORKS:
    departures = DEPARTURES if not smoke or name in SMALL_DEPARTURES else {}
    work[f"images of {name}"] = functools.partial(compare_images, report, name, departures)
  work["verdicts"] = functools.partial(compare_verdicts, report, smoke)
  report.attempt_together(work, share=0.95)


def read(name: str) -> dict[str, np.ndarray]:
  """Reads the arrays of a golden file."""
  with np.load(cases.GOLDEN / f"{name}.npz") as file:
    return dict(file)


def at_precision(function: Callable[..., Any], precision: str | None) -> Callable[..., Any]:
  """Compiles a function for one device at a precision of matrix products; None: the default."""

  def call(*arguments):
    with jax.default_matmul_precision(precision):
      return function(*arguments)

  return parallel.jit(call)


def load(name: str) -> tuple[Generator, np.ndarray, np.ndarray, np.ndarray, float]:
  """Returns a converted golden network, its latents and labels, expected images and tolerance."""
  require("torch")
  from checkpoints_convert import torch_reader

  network = NETWORKS[name]
  golden = read(network.file)
  known = json.loads(str(golden.get("config", "{}")))
  settings = known if network.chosen is None else {key: known[key] for key in network.chosen}
  converter = importlib.import_module(f"checkpoints_convert.{network.format}")
  checkpoint = torch_reader.read(cases.GOLDEN / f"{network.file}.pth")
  architecture, config, variables = converter.convert(checkpoint, settings | network.others)
  generator = generators.ARCHITECTURES[architecture].build(config, variables, name)
  latents = golden[network.latents]
  labels = golden.get("label", np.zeros(len(latents))).astype(np.int32)
  return generator, latents, labels, golden[network.images], network.tolerance


def compare_images(
  report: Report, name: str, departures: Mapping[str, tuple[str, str | None]]
) -> None:
  """Compares the images of an architecture."""
  generator, latents, labels, expected, tolerance = load(name)
  what = f"images of {name}"

  def images(dtype, precision):
    cast = with_dtype(generator, dtype)
    return at_precision(cast.generate, precision)(cast.variables, latents, labels)

  report.compare(what, largest(images("float32", "highest"), expected), tolerance, "of [-1, 1]")
  for label, how in departures.items():
    report.attempt(f"{what}, {label}", depart, report, f"{what}, {label}", images, how, expected)


def depart(
  report: Report,
  what: str,
  compute: Callable[[str, str | None], Any],
  how: tuple[str, str | None],
  expected: np.ndarray,
) -> None:
  """Writes the difference of a result in this type and precision from the expected one."""
  found = compute(*how)
  mean = float(np.abs(np.asarray(found) - expected).mean())
  report.add(what, largest(found, expected), "", f"largest; {mean:.1e} on average")


def largest(found: Any, expected: Any) -> float:
  """Returns the largest difference."""
  return float(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max())


def compare_losses(report: Report) -> None:
  """Compares both losses of the search, at two sizes."""
  golden = read("losses")
  for size in (32, 64):
    original, shifted = golden[f"original_{size}"], golden[f"shifted_{size}"]
    for name, arguments in (("outside_circle", (shifted,)), ("sobel_shift", (original, shifted))):
      expected = float(golden[f"{name}_{size}"])
      found = float(at_precision(getattr(losses, name), "highest")(*arguments))
      tolerance = max(1e-6, 1e-5 * abs(expected))
      report.compare(f"loss {name}, {size} px", abs(found - expected), tolerance)


def compare_masks(report: Report) -> None:
  """Counts the pixels of masks that differ, for every rule."""
  golden = read("masks")
  image, shifted, darker = golden["image"], golden["shifted"], golden["darker"]
  rules = {
    "lighting": (masks.lighting_mask, (image, shifted), "mask"),
    "std": (masks.std_mask, (image, shifted), "mask_std"),
    "inverted": (
      functools.partial(masks.difference_mask, rule="lighting", invert=True),
      (image, darker),
      "mask_inverted",
    ),
    "two directions": (masks.dual_mask, (shifted, darker), "mask_dual"),
    "components": (masks.keep_large_components, (golden["mask"],), "mask_largest_components"),
  }
  for name, (rule, arguments, key) in rules.items():
    found = np.asarray(parallel.jit(rule)(*arguments))
    report.compare(f"masks, {name}", int((found != golden[key]).sum()), 0, "pixels")


def compare_filters(report: Report) -> None:
  """Counts the verdicts of filters that differ."""
  golden = read("masks")
  found, shifted = golden["mask_largest_components"], golden["shifted"]
  decisions = {
    "keep_area_0_05": (lambda m: filters.area_accepted(m, 0.0, 0.5), (found,)),
    "keep_area_005_03": (lambda m: filters.area_accepted(m, 0.05, 0.3), (found,)),
    "keep_histogram_12": (filters.histogram_accepted, (shifted,)),
    "keep_roundness_0015": (lambda m: filters.roundness_accepted(m, 0.015), (found,)),
    "keep_overlap_06": (
      lambda a, b: filters.agreement(a, b) >= 0.6,
      (golden["mask"], golden["mask_inverted"]),
    ),
  }
  for key, (decide, arguments) in decisions.items():
    verdicts = np.asarray(parallel.jit(decide)(*arguments))
    name = key.removeprefix("keep_").partition("_")[0]
    different = int((verdicts != golden[key]).sum())
    report.compare(f"filters, {name} ({key})", different, 0, f"of {len(verdicts)} verdicts")


def compare_search(report: Report, smoke: bool) -> None:
  """Compares the face generator's images and three steps of a search in it."""
  require("safetensors")
  golden, generator = read("search_dcgan_faces"), generators.load(FACES)
  generate = at_precision(generator.generate, "highest")
  labels = np.zeros(golden["z"].shape[1], np.int32)
  found = generate(generator.variables, golden["z"][0], labels)
  report.compare("images of the face generator", largest(found, golden["image_z0"]), 1e-5)
  direction, apart = take_search_steps(generator, golden, "float32", "highest")
  report.compare(f"losses of {SEARCH_STEPS} search steps", apart, 1e-4)
  expected = golden["d"][SEARCH_STEPS - 1]
  what = f"direction after {SEARCH_STEPS} search steps"
  report.compare(what, largest(direction, expected), 1e-4)
  for label, how in ({} if smoke else DEPARTURES).items():

    def compute(dtype, precision):
      return take_search_steps(generator, golden, dtype, precision)[0]

    report.attempt(f"{what}, {label}", depart, report, f"{what}, {label}", compute, how, expected)


def take_search_steps(
  generator: Generator, golden: Mapping[str, np.ndarray], dtype: str, precision: str | None
) -> tuple[np.ndarray, float]:
  """Takes the first search steps; returns the direction `[100]` and the losses' difference."""
  config = default_config.get_config().search
  cast = with_dtype(generator, dtype)
  start = jnp.asarray(golden["d0"])[None, None]
  state = parallel.replicate(search_step.initial_state(config, start))
  variables = parallel.replicate(cast.variables)
  labels, apart = np.zeros(golden["z"].shape[1], np.int32), 0.0
  with jax.default_matmul_precision(precision):
    take = parallel.pmap(search_step.make_step(cast, config), donate_argnums=(0,))
    for number in range(SEARCH_STEPS):
      batch = (golden["z"][number], labels, golden["r"][number])
      state, parts = take(state, variables, *parallel.shard(batch))
      parts = parallel.unreplicate(parts)
      found = [float(parts[name][0, 0]) for name in ("outside_circle", "sobel_shift")]
      apart = max(apart, largest(found, golden["losses"][number]))
  return np.asarray(parallel.unreplicate(state).directions)[0, 0], apart


def compare_unet(report: Report, smoke: bool) -> None:
  """Compares the U-Net's logits, and counts pixels whose class changes in other types."""
  import golden_unet

  from checkpoints_convert.unet import variables_from_state_dict

  variables, golden = variables_from_state_dict(golden_unet.make_state_dict()), read("unet")
  for size in UNET_SIZES[:1] if smoke else UNET_SIZES:
    image, expected = golden[f"image_{size}"][None], golden[f"logits_{size}"]
    found = at_precision(Unet().apply, "highest")(variables, image)[0]
    report.compare(f"logits of the U-Net, {size}", largest(found, expected), 1e-4)
  for label, (dtype, precision) in ({} if smoke else DEPARTURES).items():
    found = at_precision(Unet(dtype=jnp.dtype(dtype)).apply, precision)(variables, image)[0]
    classes = np.argmax(found, axis=-1) != np.argmax(expected, axis=-1)
    note = f"largest; another class on {classes.mean():.2%} of the pixels"
    report.add(f"logits of the U-Net, {label}", largest(found, expected), "", note)


def compare_verdicts(report: Report, smoke: bool) -> None:
  """Counts candidates of the face generator whose verdict changes in other types."""
  require("safetensors")
  import bfloat16

  count = 16 if smoke else 256
  config, generator = cases.faces_config().generate, generators.load(FACES)

  def make(dtype, precision):
    with jax.default_matmul_precision(precision):
      return bfloat16.make(generator, config, dtype, cases.faces_direction(), count)

  exact = make("float32", "highest")
  for label, how in list(DEPARTURES.items())[-1:] if smoke else DEPARTURES.items():
    rough = make(*how)
    changed = int((exact["verdicts"]["all"] != rough["verdicts"]["all"]).sum())
    note = bfloat16.agreement(exact, rough)
    report.add(f"verdicts that change, {label}", changed, f"of {count}", note)
