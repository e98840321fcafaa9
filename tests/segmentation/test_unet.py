"""The U-Net equals the original, and images are resized as in PyTorch and Pillow."""

import jax
import numpy as np
import pytest
import torch
from golden_unet import GOLDEN, make_state_dict
from PIL import Image

from checkpoints_convert import unet as convert
from unseg_jax.inference import segmenter, views
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import unet


@pytest.fixture(scope="module")
def variables():
  return convert.variables_from_state_dict(make_state_dict())


@pytest.mark.parametrize("size", ["64x64", "128x171", "100x75"])
def test_logits_equal_the_originals(variables, size):
  with jax.default_matmul_precision("highest"):
    logits = parallel.jit(unet.Unet().apply)(variables, GOLDEN[f"image_{size}"][None])
  np.testing.assert_allclose(logits[0], GOLDEN[f"logits_{size}"], atol=1e-4, rtol=0)


def test_padded_pictures_of_several_sizes_get_the_logits_of_each_alone(variables):
  sizes = ((64, 64), (33, 96), (57, 31), (16, 90))
  random = np.random.default_rng(0)
  batch = random.uniform(-1, 1, (len(sizes), 64, 96, 3)).astype(np.float32)  # Random padding.
  with jax.default_matmul_precision("highest"):
    apply = parallel.jit(unet.Unet().apply)
    padded = parallel.jit(
      lambda variables, images, sizes: unet.Unet().apply(variables, images, sizes=sizes)
    )(variables, batch, np.array(sizes))
    for image, logits, (height, width) in zip(batch, padded, sizes, strict=True):
      alone = apply(variables, image[None, :height, :width])[0]
      np.testing.assert_allclose(logits[:height, :width], alone, atol=1e-4, rtol=0)


def test_max_pool_and_upsample_equal_pytorchs():
  x = np.random.default_rng(0).normal(size=(2, 7, 10, 3)).astype(np.float32)
  tensor = torch.from_numpy(x.transpose(0, 3, 1, 2))
  pooled = torch.nn.functional.max_pool2d(tensor, 2).permute(0, 2, 3, 1)
  np.testing.assert_array_equal(unet.max_pool(x), pooled)
  doubled = torch.nn.functional.interpolate(
    tensor, scale_factor=2, mode="bilinear", align_corners=True
  )
  with jax.default_matmul_precision("highest"):
    np.testing.assert_allclose(unet.upsample(x), doubled.permute(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("sizes", [[[8, 12]], [[8, 12], [4, 6], [2, 12]]])
def test_upsampling_is_the_same_on_every_kind_of_device(sizes):
  x = np.random.default_rng(0).normal(size=(3, 8, 12, 5)).astype(np.float32)
  sizes = np.array(sizes)
  weights = unet.keep_within(np.ones((3, 16, 24, 5), np.float32), 2 * np.resize(sizes, (3, 2)))

  def within(body):
    return jax.value_and_grad(lambda x: ((weights * body(x, sizes)) ** 2).sum())(x)

  by_slices, by_products = map(within, (unet.upsample_by_slices, unet.upsample_by_products))
  np.testing.assert_allclose(by_slices[0], by_products[0], rtol=1e-5)
  np.testing.assert_allclose(by_slices[1], by_products[1], atol=1e-5)


def test_training_updates_the_running_statistics_by_a_tenth():
  block = unet.Block(features=2)
  images = np.random.default_rng(0).normal(size=(parallel.device_count(), 2, 8, 8, 3))
  images = images.astype(np.float32)
  variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), images[0], False)

  def step(images):
    return block.apply(variables, images, train=True, mutable=["batch_stats"])[1]

  updated = parallel.unreplicate(parallel.pmap(step)(images))["batch_stats"]
  convolved = jax.lax.conv_general_dilated(
    images.reshape(-1, 8, 8, 3),
    variables["params"]["conv_1"]["kernel"],
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  np.testing.assert_allclose(
    updated["norm_1"]["mean"], 0.1 * convolved.mean(axis=(0, 1, 2)), atol=1e-5
  )
  np.testing.assert_allclose(
    updated["norm_1"]["var"], 0.9 + 0.1 * convolved.var(axis=(0, 1, 2)), atol=1e-5
  )


@pytest.mark.parametrize("size", [(9, 14), (31, 5), (12, 17), (24, 34), (12, 40)])
def test_resize_bilinear_equals_pytorchs(size):
  values = np.random.default_rng(0).normal(size=(12, 17)).astype(np.float32)
  expected = torch.nn.functional.interpolate(
    torch.from_numpy(values)[None, None],
    size=size,
    mode="bilinear",
    align_corners=False,
  )
  resized = views.resize_bilinear(values, size)
  assert resized.shape == size and resized.dtype == np.float32
  np.testing.assert_allclose(resized, expected[0, 0], atol=1e-5)


@pytest.mark.parametrize(
  ("shape", "expected"),
  [((100, 75), (42, 32)), ((75, 100), (32, 42)), ((20, 20), (32, 32)), ((32, 90), (32, 90))],
)
def test_resize_shorter_side_equals_pillows(shape, expected):
  image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
  pillow = Image.fromarray(image).resize(expected[::-1], Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(views.resize_shorter_side(image, 32), np.asarray(pillow))


def test_a_segmenter_gives_a_probability_for_every_pixel_of_a_picture():
  network = unet.Unet(features=(2, 3, 4))
  variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
  segment = segmenter.Segmenter.create(variables, network.features, 16)
  image = np.random.default_rng(0).integers(0, 256, (23, 40, 3), dtype=np.uint8)
  probability = segment(image)
  assert probability.shape == (23, 40) and probability.dtype == np.float32
  assert np.ptp(probability) > 0
  np.testing.assert_array_equal(segment(Image.fromarray(image)), probability)
  with pytest.raises(ValueError, match=r"uint8 \[23, 40\]"):
    segment(image[..., 0])
