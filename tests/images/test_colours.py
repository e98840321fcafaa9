"""Images with any colour profile are read as sRGB."""

import struct

import numpy as np
import pytest
from icc_files import (
  GAMMA,
  PRIMARIES,
  SRGB,
  encoded,
  fixed,
  grey_profile,
  in_profile,
  linear,
  profile,
  rgb_profile,
  xyz,
)
from PIL import Image, ImageCms

from unseg_jax.images import colours, reading

BARS = np.array([[200, 60, 40], [30, 160, 60], [240, 130, 30], [90, 90, 90]], np.uint8)


def meant(stored, name):
  """Exact sRGB values of numbers in a profile's colour space."""
  matrix = np.linalg.inv(SRGB) @ np.transpose(PRIMARIES[name])
  return encoded(linear(stored, GAMMA[name]) @ matrix.T)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("name", list(PRIMARIES))
def test_rgb_of_another_space_is_read_as_srgb(tmp_path, name, suffix):
  stored = in_profile(BARS, name)
  assert np.abs(stored.astype(int) - BARS)[:3].max() > 15
  options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
  image = Image.fromarray(stored[None].repeat(8, axis=0).repeat(8, axis=1))
  image.save(tmp_path / f"a.{suffix}", icc_profile=rgb_profile(name), **options)
  read = reading.read_picture(tmp_path / f"a.{suffix}")[4, 4::8].astype(int)
  # JPEG is lossy.
  assert np.abs(read - meant(stored, name)).max() <= (3 if suffix == "jpg" else 1)
  # Eight bits in a wider space resolve dark colours less finely.
  assert np.abs(read - BARS).max() <= (2 if name == "p3" and suffix != "jpg" else 4)
  with Image.open(tmp_path / f"a.{suffix}") as image:
    np.testing.assert_array_equal(reading.as_picture(image)[4, 4::8], read)


def test_a_palette_and_opacity_keep_their_place_when_colours_are_converted(tmp_path):
  image = Image.fromarray(in_profile(BARS, "p3")[None])
  palette = image.quantize(4)
  palette.save(tmp_path / "a.png", icc_profile=rgb_profile("p3"))
  assert np.abs(reading.read_picture(tmp_path / "a.png")[0].astype(int) - BARS).max() <= 2
  image.putalpha(Image.fromarray(np.array([[255, 255, 128, 0]], np.uint8)))
  image.save(tmp_path / "a.png", icc_profile=rgb_profile("p3"))
  read = reading.read_picture(tmp_path / "a.png")[0].astype(int)
  share = np.array([1, 1, 128 / 255, 0])[:, None]
  assert np.abs(read - (share * BARS + (1 - share) * 255)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I;16"])
@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_grey_of_another_curve_is_read_as_srgb(tmp_path, gamma, mode):
  greys = np.array([[0, 64, 128, 255]], np.uint8)
  image = Image.fromarray(greys.astype(np.uint16) * 257 if mode == "I;16" else greys)
  image = image if mode == "I;16" else image.convert(mode)
  image.save(tmp_path / "a.png", icc_profile=grey_profile(gamma))
  stored = np.asarray(image.convert("L")) if mode == "1" else greys
  expected = encoded(linear(stored, gamma))[..., None].repeat(3, axis=2)
  assert np.abs(reading.read_picture(tmp_path / "a.png") - expected).max() <= 1


def test_the_colours_of_srgb_itself_stay_exact(tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
  srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
  Image.fromarray(noise).save(tmp_path / "a.png", icc_profile=srgb)
  np.testing.assert_array_equal(reading.read_picture(tmp_path / "a.png"), noise)


def test_ink_is_converted_by_its_profile(tmp_path):
  """The profile maps every mixture of inks to one grey, unlike any conversion without it."""
  lab = struct.pack(">3H", round(0.5 * 65535), 0x8080, 0x8080)
  # lut16Type of ICC.1: 4 inputs, 3 outputs, a grid of 2, linear tables of 2 entries.
  identity = struct.pack(">9i", *fixed((1, 0, 0, 0, 1, 0, 0, 0, 1)))
  table = struct.pack(">4sIBBBB", b"mft2", 0, 4, 3, 2, 0) + identity + struct.pack(">HH", 2, 2)
  table += struct.pack(">2H", 0, 65535) * 4 + lab * 16 + struct.pack(">2H", 0, 65535) * 3
  ink = bytearray(profile("CMYK", {"wtpt": xyz((0.9642, 1, 0.8249)), "A2B0": table}))
  ink[12:16], ink[20:24] = b"prtr", b"Lab "
  image = Image.fromarray(BARS[None].repeat(8, axis=0)).convert("CMYK")
  image.save(tmp_path / "a.tif", icc_profile=bytes(ink))
  read = reading.read_picture(tmp_path / "a.tif").astype(int)
  assert np.abs(read - 119).max() <= 3  # L* of 50 is a grey of 119.


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("damage", ["noise", "cut", "of other colours", "empty tags"])
def test_a_profile_that_cannot_be_used_is_said_and_left_out(tmp_path, caplog, mode, damage):
  image = Image.fromarray(BARS[None].repeat(8, axis=0)).convert(mode)
  other = grey_profile(2.2) if mode == "RGB" else rgb_profile("p3")
  broken = {
    "noise": bytes(range(256)),
    "cut": rgb_profile("p3")[:200],
    "of other colours": grey_profile(2.2) if mode == "CMYK" else other,
    "empty tags": profile("RGB ", {}),
  }[damage]
  image.save(tmp_path / "a.tif", icc_profile=broken)
  read = reading.read_picture(tmp_path / "a.tif")
  if mode == "L" and damage == "of other colours":
    return  # RGB profiles also describe grey.
  np.testing.assert_array_equal(read, np.asarray(image.convert("RGB")))
  assert f"{tmp_path / 'a.tif'}: its colour profile is ignored" in caplog.text


def test_an_rgb_profile_describes_grey_as_well():
  grey, adobe = Image.fromarray(BARS[:, :1]), rgb_profile("adobe")
  read = np.asarray(colours.to_srgb(grey, adobe, "a picture"))
  np.testing.assert_array_equal(read, colours.to_srgb(grey.convert("RGB"), adobe, "a picture"))
  assert np.abs(read[..., 0] - encoded(linear(BARS[:, :1], GAMMA["adobe"]))).max() <= 1
