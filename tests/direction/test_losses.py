"""The two search losses equal the original implementation's."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unseg_jax.direction import losses

GOLDEN = np.load(pathlib.Path(__file__).parents[1] / "golden" / "losses.npz")


def assert_close(loss, expected):
  assert abs(loss - expected) <= max(1e-6, 1e-5 * abs(expected)), (loss, expected)


@pytest.mark.parametrize("size", [32, 64])
def test_outside_circle_equals_the_original(size):
  loss = jax.jit(losses.outside_circle)(GOLDEN[f"shifted_{size}"])
  assert_close(float(loss), float(GOLDEN[f"outside_circle_{size}"]))


@pytest.mark.parametrize("size", [32, 64])
def test_sobel_shift_equals_the_original(size):
  loss = jax.jit(losses.sobel_shift)(GOLDEN[f"original_{size}"], GOLDEN[f"shifted_{size}"])
  assert_close(float(loss), float(GOLDEN[f"sobel_shift_{size}"]))


def test_outside_circle_prefers_a_light_middle():
  rows, columns = jnp.meshgrid(jnp.linspace(-1, 1, 16), jnp.linspace(-1, 1, 16))
  disc = jnp.where(rows**2 + columns**2 < 0.5, 1.0, -1.0)[None, ..., None].repeat(3, axis=-1)
  assert losses.outside_circle(disc) < -0.1
  np.testing.assert_allclose(losses.outside_circle(-disc), -losses.outside_circle(disc), rtol=1e-5)


def test_outside_circle_ignores_a_uniform_change_of_brightness():
  images = GOLDEN["shifted_32"]
  brighter = losses.outside_circle(images + 0.5)
  np.testing.assert_allclose(brighter, losses.outside_circle(images), atol=1e-5)


def test_sobel_shift_sees_edges_and_not_brightness():
  images = GOLDEN["original_32"]
  assert losses.sobel_shift(images, images) == 0
  np.testing.assert_allclose(losses.sobel_shift(images, images + 0.3), 0, atol=1e-9)
  assert losses.sobel_shift(images, 0.5 * images) > 1e-4


def test_gradients_stay_finite_on_a_flat_picture():
  flat = jnp.zeros((1, 8, 8, 3))
  assert np.isfinite(jax.grad(losses.sobel_shift)(flat, flat)).all()
