"""One command evaluates any segmenter on images of any kind, with any batch size."""

import dataclasses
import json
import logging
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from whole_runs import run_command

from checkpoints_convert.convert import convert_file
from configs import evaluate as evaluate_config
from unseg_jax import pipeline
from unseg_jax.artifacts import generator_files
from unseg_jax.evaluation import baselines, benchmarks, evaluate, folders, metrics, saliency
from unseg_jax.inference import refinement
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import resize_shorter_side
from unseg_jax.segmentation.unet import Unet

ROOT = Path(__file__).parents[2]
WIDTHS = (2, 3, 4)
SCORES = {"accuracy", "iou", "f_beta", "f_max", "background_iou", "miou"}


@pytest.fixture(scope="session")
def unet_file(tmp_path_factory):
  """A converted U-Net of random weights that separates light from dark, at 32 pixels."""
  network = Unet(WIDTHS)
  variables = jax.jit(network.init)(jax.random.key(3), np.zeros((1, 16, 16, 3), np.float32))
  variables = jax.device_get(variables)
  # Otherwise nearly all logits would have the same sign.
  out = variables["params"]["out"]
  out["kernel"] = 20 * out["kernel"]
  path = tmp_path_factory.mktemp("unet") / "unet.safetensors"
  config = {"widths": WIDTHS, "image_size": 32}
  generator_files.save_generator(
    path, generator_files.GeneratorFile("unet", config, variables, "0" * 64)
  )
  return path


@pytest.fixture(scope="session")
def segmenter(unet_file):
  return Segmenter.restore(unet_file)


def make_pair(height, width, seed=0):
  """A noise image with a lighter disc, and the disc as its mask."""
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:height, :width]
  mask = np.hypot(rows / height - 0.5, columns / width - 0.5) < rng.uniform(0.2, 0.4)
  image = rng.integers(0, 128, (height, width, 3)) + 120 * mask[..., None]
  return image.astype(np.uint8), mask


def save_pair(images, masks, stem, height, width, mode="RGB", suffix="png", seed=0):
  for path in (images, masks):
    path.mkdir(parents=True, exist_ok=True)
  image, mask = make_pair(height, width, seed)
  if mode == "I;16":
    picture = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
  else:
    picture = Image.fromarray(image).convert(mode)
  if mode == "RGBA":
    picture.putalpha(Image.fromarray(np.where(mask, 255, 100).astype(np.uint8)))
  picture.save(images / f"{stem}.{suffix}")
  Image.fromarray(mask).save(masks / f"{stem}.png")


def make_root(root):
  """ECSSD and CUB in the original folders, with two images each."""
  for name in ("ecssd", "cub"):
    benchmark = benchmarks.get(name)
    for seed, size in enumerate([(40, 60), (75, 50)]):
      save_pair(root / benchmark.images, root / benchmark.masks, f"{seed:04}", *size, seed=seed)
  return root


def make_config(segmenter, **changes):
  config = evaluate_config.get_config()
  config.segmenter = str(segmenter)
  config.evaluate.benchmarks = ()
  config.evaluate.update(changes)
  return config


def test_one_command_evaluates_the_benchmarks_in_their_original_folders(
  unet_file, segmenter, tmp_path
):
  root = make_root(tmp_path / "data")
  workdir = tmp_path / "run"
  done = run_command(
    "-m",
    "unseg_jax.main",
    "--config=configs/evaluate.py",
    f"--config.segmenter={unet_file}",
    f"--config.data_root={root}",
    "--config.evaluate.benchmarks=('ecssd','cub')",
    f"--workdir={workdir}",
  )
  written = {"metrics.json", "metrics.md", "metrics.txt", "baselines.json", "image_counts.json"}
  assert {path.name for path in workdir.iterdir()} == written
  results = json.loads((workdir / "metrics.json").read_text())
  assert list(results) == ["ecssd", "cub"] and results["ecssd"].keys() == SCORES
  table = (workdir / "metrics.txt").read_text()
  assert table in done.stdout
  names = ["Data", "set", "Accuracy", "IoU", "F_beta", "F_max", "Background", "IoU", "mIoU"]
  assert table.splitlines()[0].split() == names
  rows = {line.partition("  ")[0]: line for line in table.splitlines()[2:]}
  answers = [f" ({name})" for name in baselines.BASELINES]
  assert list(rows) == [name + answer for name in ("ecssd", "cub") for answer in ("", *answers)]
  assert f"{results['cub']['iou']:.4f}" in rows["cub"]
  assert re.match(r"\| Data set +\| Accuracy \|", (workdir / "metrics.md").read_text())
  # Scores equal those of images segmented one by one, and for CUB of central squares.
  for name, averages in results.items():
    benchmark = benchmarks.get(name)
    alone = []
    for image, mask in folders.paired(root / benchmark.images, root / benchmark.masks):
      pair = folders.read_pair(image, mask)
      if name == "cub":
        pair = [evaluate.central_square(array) for array in pair]
      alone.append(metrics.image_scores(segmenter(pair[0]), pair[1]))
    assert averages == pytest.approx(metrics.aggregate(alone), abs=1e-4)


def test_the_papers_numbers_stand_below_ours(unet_file, tmp_path, capsys):
  config = make_config(unet_file, benchmarks=("ecssd",))
  config.data_root = str(make_root(tmp_path / "data"))
  config.evaluate.reference.ecssd = {"accuracy": 0.8765, "f_max": 0.75}
  pipeline.evaluate_segmenter(config, tmp_path / "run")
  for suffix in ("txt", "md"):
    table = (tmp_path / "run" / f"metrics.{suffix}").read_text()
    ours, paper = table.strip().splitlines()[2:4]
    assert "ecssd" in ours and "ecssd (reference)" in paper
    assert [cell for cell in paper.replace("|", " ").split()[2:]] == [
      "0.8765",
      "-",
      "-",
      "0.7500",
      "-",
      "-",
    ]
  assert "ecssd (reference)" in capsys.readouterr().out


def test_a_folder_of_pictures_of_every_kind_and_size_simply_works(unet_file, tmp_path):
  images, masks = tmp_path / "images", tmp_path / "masks"
  kinds = [
    (50, 70, "RGB", "png"),
    (90, 40, "RGB", "jpg"),  # Portrait.
    (33, 33, "L", "png"),
    (20, 31, "RGBA", "png"),  # Smaller than the network's input.
    (47, 64, "LA", "png"),
    (64, 47, "I;16", "png"),
    (41, 58, "P", "png"),
    (32, 32, "1", "png"),
    (35, 300, "L", "jpg"),
    (1, 1, "RGB", "png"),
  ]
  for number, (height, width, mode, suffix) in enumerate(kinds):
    save_pair(images, masks, f"{number}", height, width, mode, suffix, seed=number)
  for crop in (False, True):
    config = make_config(unet_file, folders=(("photographs", str(images), str(masks), crop),))
    pipeline.evaluate_segmenter(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert results.keys() == {"photographs"} and results["photographs"].keys() == SCORES
    assert np.isfinite(list(results["photographs"].values())).all()


@pytest.fixture(scope="session")
def pairs():
  """Seven images of five sizes, some of which share a padded size."""
  sizes = [(40, 60), (40, 60), (75, 50), (41, 60), (40, 60), (32, 32), (75, 50)]
  return [make_pair(*size, seed) for seed, size in enumerate(sizes)]


def test_the_size_of_the_batches_changes_nothing(segmenter, pairs):
  alone = metrics.aggregate([metrics.image_scores(segmenter(i), m) for i, m in pairs])
  assert 0.01 < alone["iou"] < 0.99
  for batch_size in (1, 3, 8):
    results = evaluate.evaluate(segmenter, iter(pairs), batch_size)
    assert results == pytest.approx(alone, abs=1e-6)
  # The order of images has no effect either.
  assert evaluate.evaluate(segmenter, pairs[::-1], 8) == pytest.approx(alone, abs=1e-6)


def test_200_sizes_take_a_few_compilations(unet_file, caplog):
  segmenter = Segmenter.restore(unet_file)
  rng = np.random.default_rng(0)
  sizes = {(int(h), int(w)) for h, w in rng.integers(32, 97, (400, 2))}
  sizes = sorted(sizes)[:200]
  assert len(sizes) == 200
  pairs = [make_pair(*size) for size in sizes]
  evaluate.evaluate(segmenter, pairs[:1], batch_size=4)  # Other programs that JAX compiles first.
  with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
    evaluate.evaluate(segmenter, pairs, batch_size=4)
  compiled = [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
  # The shorter side is 32; the longer ones are padded to multiples of 32, up to 96.
  longer = {resize_shorter_side(image, 32).shape[:2] for image, _ in pairs}
  assert len(longer) > 50
  assert 1 <= len(compiled) <= 4


def test_what_looks_at_no_picture_is_scored_beside_the_segmenter(segmenter, pairs):
  results = evaluate.compare(segmenter, pairs)
  assert results.pop(evaluate.SEGMENTER) == evaluate.evaluate(segmenter, pairs)
  assert list(results) == ["all foreground", "fixed ellipse"]
  for name, answer in baselines.BASELINES.items():
    alone = [metrics.image_scores(answer(mask.shape), mask) for _, mask in pairs]
    assert results[name] == metrics.aggregate(alone)


def test_the_ellipse_is_the_published_one():
  ellipse = baselines.ellipse((200, 100)) > 0.5
  assert ellipse[105, 50] and not ellipse[:, :9].any() and ellipse[105, 11]
  assert not ellipse[0].any() and ellipse[-1, 50]  # The ellipse extends further down than up.
  assert ellipse.mean() == pytest.approx(np.pi / 4 * 0.8, abs=0.02)


def test_averaging_is_over_the_mirror_image_and_three_scales(segmenter, pairs):
  averaged = evaluate.evaluate(segmenter, pairs, batch_size=3, average=True)
  alone = [metrics.image_scores(segmenter(image, average=True), mask) for image, mask in pairs]
  assert averaged == pytest.approx(metrics.aggregate(alone), abs=1e-6)
  assert averaged != evaluate.evaluate(segmenter, pairs)
  image = pairs[0][0]
  by_hand = []
  for scale in (0.75, 1.0, 1.5):
    other = Segmenter(segmenter.variables, round(scale * segmenter.image_size), segmenter.logits)
    by_hand += [other(image), other(image[:, ::-1])[:, ::-1]]
  np.testing.assert_allclose(segmenter(image, average=True), np.mean(by_hand, axis=0), atol=1e-6)
  # The prediction of a mirrored image is therefore the mirrored prediction.
  mirrored = segmenter(image[:, ::-1], average=True)
  np.testing.assert_allclose(segmenter(image, average=True), mirrored[:, ::-1], atol=1e-5)


def test_saliency_adds_the_fields_metrics(segmenter, pairs):
  plain = evaluate.evaluate(segmenter, pairs)
  results = evaluate.evaluate(segmenter, pairs, with_saliency=True)
  assert results.keys() == SCORES | set(saliency.NAMES)
  assert {name: results[name] for name in SCORES} == plain
  expected = saliency.aggregate([saliency.saliency_scores(segmenter(i), m) for i, m in pairs])
  # Rounded to 8 bits, so that the last bits of a probability may count.
  assert {name: results[name] for name in saliency.NAMES} == pytest.approx(expected, abs=1e-4)


def test_refinement_is_applied_to_the_masks(segmenter, pairs):
  plain = evaluate.evaluate(segmenter, pairs)
  results = evaluate.evaluate(segmenter, pairs, refine="guided")
  expected = metrics.aggregate(
    [
      metrics.image_scores(refinement.refine(segmenter(image), image, "guided"), mask)
      for image, mask in pairs
    ]
  )
  assert results == pytest.approx(expected, abs=1e-4)
  assert any(abs(results[name] - plain[name]) > 1e-4 for name in SCORES)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"benchmarks": ("pascal",)}, "no benchmark 'pascal'; expected one of cub, flowers"),
    ({}, "lists nothing to evaluate on; set config.evaluate.benchmarks, .folders or .tfds"),
    ({"benchmarks": ("ecssd",), "refine": "magic"}, "refine='magic' is not offered; use one of"),
    ({"benchmarks": ("ecssd",), "refine": "crf"}, "'crf' is not offered (no maintained dense CRF"),
    ({"benchmarks": ("duts",)}, "benchmark duts is not in data_root"),
    ({"benchmarks": ("ecssd", "ecssd")}, "the name 'ecssd' is taken; choose another"),
    ({"benchmarks": ("ecssd",), "batch_size": 0}, "config.evaluate.batch_size=0"),
  ],
)
def test_a_wrong_setting_is_named_before_any_work(unet_file, tmp_path, changes, message):
  config = make_config(unet_file, **changes)
  config.data_root = str(make_root(tmp_path / "data"))
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    pipeline.evaluate_segmenter(config, tmp_path / "run")
  assert message in str(error.value)
  assert not (tmp_path / "run").exists()


def test_what_is_no_segmenter_is_named(unet_file, tmp_path):
  config = make_config(tmp_path / "missing", benchmarks=("ecssd",))
  config.data_root = str(make_root(tmp_path / "data"))
  with pytest.raises(FileNotFoundError, match="missing is not the workdir of a run"):
    pipeline.evaluate_segmenter(config, tmp_path / "run")
  generator = tmp_path / "faces.safetensors"
  convert_file(ROOT / "tests" / "golden" / "dcgan.pth", generator, "dcgan")
  config.segmenter = str(generator)
  with pytest.raises(ValueError, match="holds a dcgan generator, expected a segmenter"):
    pipeline.evaluate_segmenter(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_data_set_without_pictures_is_refused(segmenter):
  with pytest.raises(ValueError, match="at least one image"):
    evaluate.evaluate(segmenter, [])


@pytest.mark.parametrize("size", [(300, 400), (400, 301), (101, 64), (64, 64), (31, 90), (33, 32)])
def test_central_square_and_resize_equal_pillows(size):
  image, mask = make_pair(*size)
  height, width = size
  side = min(size)
  # As torchvision's CenterCrop and Resize call Pillow.
  left, top = round((width - side) / 2), round((height - side) / 2)
  box = (left, top, left + side, top + side)
  cropped = Image.fromarray(image).crop(box)
  expected = cropped.resize((32, 32), Image.Resampling.BILINEAR)
  square = evaluate.central_square(image)
  np.testing.assert_array_equal(square, np.asarray(cropped))
  np.testing.assert_array_equal(resize_shorter_side(square, 32), np.asarray(expected))
  np.testing.assert_array_equal(
    evaluate.central_square(mask), np.asarray(Image.fromarray(mask).crop(box))
  )


def test_the_network_sees_what_pillow_makes_of_the_cropped_pictures(segmenter, tmp_path):
  # Covers all steps from the file, so it detects changes in the crop or the order of steps.
  seen = []

  def look(variables, batch, sizes):
    seen.extend(image[:h, :w] for image, (h, w) in zip(batch, sizes, strict=True))
    return segmenter.logits(variables, batch, sizes)

  spy = dataclasses.replace(segmenter, logits=look)
  images, masks = tmp_path / "images", tmp_path / "masks"
  save_pair(images, masks, "a", 75, 50)
  save_pair(images, masks, "b", 40, 61)
  for crop, boxes in (
    (True, [(0, 12, 50, 62), (10, 0, 50, 40)]),
    (False, [(0, 0, 50, 75), (0, 0, 61, 40)]),
  ):
    config = make_config("", folders=(("photographs", str(images), str(masks), crop),))
    seen.clear()
    evaluate.evaluate(spy, evaluate.data_sets(config)["photographs"], batch_size=1)
    sizes = [(32, 32), (32, 32)] if crop else [(32, 48), (48, 32)]
    for stem, box, size, view in zip("ab", boxes, sizes, seen, strict=True):
      picture = Image.open(images / f"{stem}.png").crop(box)
      expected = np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
      np.testing.assert_array_equal(view, expected)
