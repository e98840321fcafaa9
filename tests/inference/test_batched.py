"""Batches are bounded by their number of pixels and by the available memory."""

import jax
import numpy as np
import pytest

from unseg_jax.inference import batched, views
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.segmentation import unet

FEATURES = (2, 4, 4)


@pytest.fixture(scope="module")
def segmenter():
  """Returns a tiny segmenter with random weights."""
  variables = unet.Unet(FEATURES).init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
  return Segmenter.create(jax.tree.map(np.asarray, variables), FEATURES, 16)


def noise(height, width):
  return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def batch_pixels(monkeypatch):
  """Returns the number of pixels of each image in each batch of the network."""
  seen, start = [], Segmenter.start

  def count(self, images):
    seen.append([np.prod(views.padded_size(image)) for image in images])
    return start(self, images)

  monkeypatch.setattr(Segmenter, "start", count)
  return seen


def test_extreme_pictures_are_answered_in_pieces_of_bounded_memory(
  segmenter, batch_pixels, monkeypatch
):
  monkeypatch.setattr(views, "PIECE_PIXELS", 2**14)
  monkeypatch.setattr(batched, "BATCH_PIXELS", 2**14)
  pictures = {
    f"{h} x {w}": noise(h, w) for h, w in [(16, 3000), (3000, 16), (16, 40), (40, 16)] * 2
  }
  answered = dict(
    batched.logits(segmenter, ((name, [image]) for name, image in pictures.items()), 8)
  )
  assert answered.keys() == pictures.keys()
  largest = max(2**14, 32 * 2**14 // 16)  # A piece's shorter side is padded to 32.
  assert max(map(sum, batch_pixels)) <= largest * segmenter.device_count
  for name, image in pictures.items():
    assert answered[name][0].shape == image.shape[:2]
    np.testing.assert_allclose(answered[name][0], segmenter.small_logits([image])[0], atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64000), (64000, 64), (1, 2**24), (128, 131072), (9, 300001)])
def test_pieces_answer_every_place_once_and_see_beyond_it(size):
  pieces = views.pieces(size)
  long = max(size)
  assert [piece.answers[0] for piece in pieces] == [0, *(p.answers[1] for p in pieces[:-1])]
  assert pieces[-1].answers[1] == long and len({-(-(p.stop - p.start) // 32) for p in pieces}) == 1
  for piece in pieces:
    assert piece.start % views.PADDED_TO == 0
    assert piece.start == 0 or piece.answers[0] - piece.start >= views.MARGIN // 2
    assert piece.stop == long or piece.stop - piece.answers[1] >= views.MARGIN // 2
    assert (piece.stop - piece.start) * min(size) <= views.PIECE_PIXELS


def test_ordinary_pictures_are_one_piece():
  for size in [(128, 128), (512, 4095), (4096, 4096), (1, 1), (64, 1000)]:
    assert len(views.pieces(size)) == 1


def test_a_picture_whose_view_would_be_too_large_is_refused():
  with pytest.raises(ValueError, match=r"20000 x 1 pixels, or 2560000 x 128 .* cut it into pieces"):
    views.views(noise(1, 20000), 128, average=False)
  assert views.views(noise(2, 2000), 64, average=False)[0].shape == (64, 64000, 3)


@pytest.mark.parametrize("late", [False, True])
def test_where_memory_does_not_suffice_batches_are_halved_and_single_pictures_refused(
  segmenter, monkeypatch, late
):
  start, attempts = Segmenter.start, []

  def start_if_it_fits(self, images):
    attempts.append(len(images))
    pixels = sum(np.prod(image.shape[:2]) for image in images) / self.device_count

    def fail():
      raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

    if pixels > 2 * 16 * 16:
      return fail if late else fail()
    return start(self, images)

  monkeypatch.setattr(Segmenter, "start", start_if_it_fits)
  pictures = {number: noise(16, 16) for number in range(40)} | {"large": noise(64, 64)}
  refused = {}
  named = ((name, [image]) for name, image in pictures.items())
  answered = dict(batched.logits(segmenter, named, 8, refused.__setitem__))
  assert answered.keys() == set(range(40))
  assert refused.keys() == {"large"} and "64 x 64 pixels" in refused["large"]
  # What did not fit is not tried again.
  assert len(attempts) < 40
  np.testing.assert_allclose(answered[3][0], segmenter.small_logits([pictures[3]])[0], atol=1e-5)


def test_other_errors_of_the_network_are_not_held_back(segmenter, monkeypatch):
  def fail(self, images):
    raise RuntimeError("INTERNAL: a fault")

  monkeypatch.setattr(Segmenter, "start", fail)
  with pytest.raises(RuntimeError, match="INTERNAL"):
    list(batched.logits(segmenter, [("a", [noise(16, 16)])], 8))
