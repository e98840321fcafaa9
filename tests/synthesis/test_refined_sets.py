"""Data sets whose masks are fitted to their pictures: `config.generate.refine`."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_generator import tiny_generator
from whole_runs import make_config as whole_config

from unseg_jax import default_config, experiment
from unseg_jax.synthesis import candidates, generate, shards

pytestmark = pytest.mark.usefixtures("compile_quickly")
LEAST = 0.6


def make_config(**changes):
  config = default_config.get_config().generate
  config.update({"area": (0.2, 0.7), "histogram_maxima": 0, "chunk": 8, "shard_candidates": 16})
  config.num_images.update({"train": 24, "validation": 4, "test": 4})
  config.update({"refine": "grabcut", "refined_iou": LEAST, **changes})
  return config


@pytest.fixture(scope="module")
def loaded():
  """A generator of smooth pictures of 32 x 32, which have edges to cut along."""
  small = tiny_generator()
  kernel = jax.image.resize(small.variables["kernel"], (6, 32, 32, 3), "cubic")
  return dataclasses.replace(small, variables={"kernel": kernel}, image_size=32)


@pytest.fixture(scope="module")
def direction(loaded):
  found = np.random.default_rng(1).normal(size=(1, *loaded.latent_shape)).astype(np.float32)
  return found / np.linalg.norm(found)


class TestTheDataSet:
  @pytest.fixture(scope="class")
  def made(self, loaded, direction, tmp_path_factory, compile_quickly):
    folder, key = tmp_path_factory.mktemp("refined"), jax.random.key(0)
    return generate.generate(loaded, make_config(), direction, key, folder), folder

  @pytest.fixture(scope="class")
  def expected(self, loaded, direction, compile_quickly):
    """What becomes of the first candidates of the training split that the filters accept."""
    config = make_config()
    compute = jax.jit(candidates.make_candidates(loaded, config))
    key = generate.split_key(jax.random.key(0), "train")
    raw = compute(loaded.variables, direction, key, np.arange(128))
    return {
      i: (np.asarray(raw["mask"][i]), *candidates.refine(*pair(raw, i), config))
      for i in np.flatnonzero(raw["verdicts"]["all"])
    }

  def test_holds_refined_masks_of_those_that_keep_enough_of_themselves(self, made, expected):
    records = list(shards.read(made[1], "train"))
    accepted = [i for i, (*_, verdict) in expected.items() if verdict]
    assert [record["candidate"] for record in records] == accepted[:24]
    for record in records:
      _, refined, _, _ = expected[record["candidate"]]
      np.testing.assert_array_equal(record["mask"][..., 0] > 127, refined)
    assert any((raw != refined).any() for raw, refined, _, _ in expected.values())

  def test_every_verdict_is_that_of_the_settings(self, expected):
    verdicts = [verdict for *_, verdict in expected.values()]
    assert any(verdicts) and not all(verdicts)
    for raw, refined, overlap, verdict in expected.values():
      assert overlap == pytest.approx((raw & refined).sum() / max((raw | refined).sum(), 1))
      assert verdict == (overlap >= LEAST and 0.2 <= refined.mean() <= 0.7)

  def test_counts_what_was_dropped(self, made):
    rates = made[0].rates()
    assert rates["refinement"] == rates["all"] < rates["area"]

  def test_too_strict_a_bound_is_named(self, loaded, direction, tmp_path):
    config = make_config(refined_iou=1.0)
    with pytest.raises(generate.TooFewAccepted, match=r"refinement \d.*refined_iou"):
      generate.generate(loaded, config, direction, jax.random.key(0), tmp_path)


def pair(raw, i):
  return np.asarray(raw["mask"][i]), np.asarray(raw["image"][i])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"refine": "snakes"}, "refine='snakes' is not offered"),
    ({"refined_iou": 1.5}, r"refined_iou=1\.5: expected an IoU within \[0, 1\]"),
    ({"num_images": {"train": 0}}, "grabcut needs a data set on disk; .*refine to 'none'"),
  ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    generate.check_config(make_config(**changes), 1)


def test_a_run_without_it_remembers_nothing_of_it(generator, tmp_path):
  """Workdirs from before there was such a setting are continued."""
  config = whole_config(generator)
  for refine, remembered in (("grabcut", True), ("none", False)):
    config.generate.refine = refine
    settings = experiment.Run(config, tmp_path, None, (), None).settings("generate")
    assert ("refine" in settings["generate"]) == remembered
    assert ("refined_iou" in settings["generate"]) == remembered
