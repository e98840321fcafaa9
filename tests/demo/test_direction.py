"""The second and third tab: at the run's shift, images and masks equal those of the synthesis."""

import shutil

import jax
import numpy as np
import pytest

from unseg_jax import generators
from unseg_jax.artifacts import stage_records
from unseg_jax.demo import direction, html, search_history
from unseg_jax.demo import runs as runs_lib
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import candidates

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture(scope="module")
def search(runs, compile_quickly):
  """A search for two directions, with the filters area, histogram and agreement."""
  return direction.open_search(runs / "light_and_dark")


def test_finished_searches_are_there_to_choose_from(runs, tmp_path):
  assert runs_lib.searches(runs) == [str(runs / "light_and_dark"), str(runs / "whole")]
  assert runs_lib.searches(tmp_path / "missing") == []
  (tmp_path / "begun" / "search").mkdir(parents=True)
  stage_records.begin_stage(tmp_path / "begun" / "search", {})
  assert runs_lib.searches(tmp_path) == []
  with pytest.raises(FileNotFoundError, match="no complete result of the stage 'search'"):
    direction.open_search(tmp_path / "begun")


def test_at_the_runs_shift_masks_and_verdicts_are_those_of_the_synthesis(search, generator):
  make = jax.jit(candidates.make_candidates(generators.load(generator), search.settings))
  loaded, numbers = generators.load(generator), np.arange(direction.LATENTS)
  expected = make(loaded.variables, search.directions, jax.random.key(7), numbers)
  drawn = direction.explore(search, search.directions, 7, search.settings.shift)
  np.testing.assert_allclose(drawn.images.astype(int), expected["image"], atol=1)
  assert (drawn.masks == expected["mask"]).mean() > 0.999
  assert drawn.verdicts.keys() == expected["verdicts"].keys() - {"all"}
  for name, verdict in drawn.verdicts.items():
    np.testing.assert_array_equal(verdict, expected["verdicts"][name])


def test_another_shift_is_other_pixels_and_another_verdict(search):
  still, moved = (direction.explore(search, search.directions, 0, shift) for shift in (0, 5))
  np.testing.assert_array_equal(still.images, moved.images)
  np.testing.assert_array_equal(still.shifted[0], still.images)
  assert (still.difference == 128).all() and not still.masks.any()
  assert (moved.shifted[0] != moved.images).any() and moved.masks.any()
  judged = [direction.judge(drawn, 0, search.settings) for drawn in (still, moved)]
  assert "area" in direction.rejected_by(judged[0])
  assert "area" not in direction.rejected_by(judged[1])
  assert judged[0][0] == direction.Judgement("area", "0.000", "0.01 to 1 of the image", False)


def test_other_seeds_are_other_latents_and_a_seed_is_always_the_same(search):
  first, again, other = (
    direction.explore(search, search.directions, s, 2).images for s in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_every_filter_says_why_and_those_not_used_say_so(search):
  drawn = direction.explore(search, search.directions, 0, 5)
  judged = {each.name: each for each in direction.judge(drawn, 0, search.settings)}
  assert list(judged) == ["area", "histogram", "roundness", "agreement"]
  assert judged["roundness"].accepted is None
  assert judged["histogram"].number.isdigit()
  assert judged["histogram"].wanted == "at least 2 maxima"
  assert judged["agreement"].wanted == "at least 0.5 of the pixels"
  text = html.direction(search, drawn, 5)
  assert text.count("not used") == direction.LATENTS
  assert all(f": {name}" in text for name in ("unshifted", "light", "dark", "difference", "mask"))


def test_a_run_of_one_direction_has_no_dark_side(runs):
  search = direction.open_search(runs / "whole")
  drawn = direction.explore(search, search.directions, 0, 5)
  assert drawn.shifted.shape[0] == 1 and "agreement" not in drawn.numbers
  text = html.direction(search, drawn, 5)
  assert ": shifted" in text and ": dark" not in text


def test_an_opened_search_is_kept_until_it_changes(runs, tmp_path):
  shutil.copytree(runs / "whole", tmp_path / "run")
  first = direction.open_search(tmp_path / "run")
  assert direction.open_search(tmp_path / "run") is first
  record = whole_files.read_json(tmp_path / "run" / "search" / stage_records.RECORD)
  whole_files.write_json(tmp_path / "run" / "search" / stage_records.RECORD, record)
  assert direction.open_search(tmp_path / "run") is not first


def test_snapshots_lead_from_a_random_start_to_the_direction(search):
  passed = search_history.snapshots(search, seed=0)
  assert [snapshot.step for snapshot in passed] == [0, 1, 3, 6]
  assert passed[-1].cosine == pytest.approx(1) and passed[0].cosine < 0.99
  drawn = direction.explore(search, search.directions, 0, search.settings.shift)
  np.testing.assert_array_equal(passed[-1].drawn.masks, drawn.masks)
  losses = search_history.curves(search.workdir)
  assert len(losses) == 4 and all(len(values) == 6 for _, values in losses.values())
  text = html.search_history(search, losses, passed)
  assert "the random start" in text and "step 6" in text and "light outside_circle" in text
  assert text.count("<img") == 4 and "<svg" in text


def test_a_search_of_an_older_version_says_that_it_kept_no_snapshots(runs, tmp_path):
  shutil.copytree(runs / "whole", tmp_path / "run")
  (tmp_path / "run" / "search" / "snapshots.npz").unlink()
  search = direction.open_search(tmp_path / "run")
  text = html.search_history(
    search, search_history.curves(search.workdir), search_history.snapshots(search, 0)
  )
  assert "saved no snapshots" in text and "<svg" in text


def test_names_cannot_become_a_part_of_the_page():
  assert html.message("<script>") == '<p class="refused" role="alert">&lt;script&gt;</p>'
  assert html.message("") == ""
  assert "&lt;b&gt;" in html.no_search("<b>")
  assert "--config=configs/dcgan_faces.py --stages=search" in html.no_search("runs")
