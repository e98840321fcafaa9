"""Uploads that the page accepts, and the errors for all others."""

import numpy as np
import pytest
from PIL import Image

from unseg_jax.demo import limits
from unseg_jax.images import reading


def test_a_picture_is_read_as_everywhere_else(photograph):
  np.testing.assert_array_equal(limits.read_upload(photograph), reading.read_picture(photograph))


@pytest.mark.parametrize(
  ("kind", "message"),
  [
    ("text", r"^notes\.png is not an image .* Expected one of AVIF, .*WEBP; the"),
    ("bomb", r"^bomb\.png has [\d,]+ x [\d,]+ pixels; this page accepts at most 25 million\."),
  ],
)
def test_what_is_no_picture_or_far_too_large_is_one_message(refused, kind, message):
  with pytest.raises(ValueError, match=message):
    limits.read_upload(refused[kind])


def test_a_picture_of_too_many_pixels_is_refused_by_its_size(tmp_path):
  path = tmp_path / "wide.png"
  Image.new("1", (10_000, 2_501)).save(path)
  with pytest.raises(ValueError, match=r"^wide\.png has 10,000 x 2,501 pixels; .*25 million"):
    limits.read_upload(path)
  Image.new("1", (10_000, 2_500)).save(path)
  assert limits.read_upload(path).shape == (2_500, 10_000, 3)


@pytest.mark.parametrize("kept", [0.5, 0.05])
def test_a_damaged_picture_is_named_without_its_folder(tmp_path, photograph, kept):
  path = tmp_path / "cut.png"
  whole = photograph.read_bytes()
  path.write_bytes(whole[: round(kept * len(whole))])
  with pytest.raises(ValueError, match=r"^cut\.png ") as caught:
    limits.read_upload(path)
  assert str(tmp_path) not in str(caught.value)


def test_an_upload_that_was_deleted_meanwhile_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"^photo\.png was deleted: .* Upload it again\.$"):
    limits.read_upload(tmp_path / "photo.png")


def test_what_another_program_would_have_to_draw_is_refused(tmp_path):
  path = tmp_path / "drawing.png"
  path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
  with pytest.raises(ValueError, match=r"^drawing\.png is not an image"):
    limits.read_upload(path)
