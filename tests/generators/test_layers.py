"""All implementations of nearest upsampling and convolution give the same numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unseg_jax.generators import layers, stylegan2

BODIES = {
  "as the processor likes it": layers.convolve_upsampled,
  "on a CPU": layers._convolve_upsampled_on_cpu,
  "on accelerators": layers._dilated,
  "in phases": layers._in_phases,
}


def plain(x, kernel):
  """The definition: repeats every pixel, then applies a "SAME" convolution."""
  repeated = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
  dimensions = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    repeated, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision="highest"
  )


def case(shape, side):
  random = np.random.default_rng(0)
  kernel = random.normal(size=(side, side, shape[-1], 5)) / np.sqrt(side * side * shape[-1])
  return jnp.asarray(random.normal(size=shape), jnp.float32), jnp.asarray(kernel, jnp.float32)


# Below and above the size from which a CPU folds the kernel.
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 4, 6), (3, 20, 19, 4)])
@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("body", BODIES)
def test_values_and_gradients_are_those_of_the_definition(body, side, shape):
  if body == "in phases" and side == 1:
    pytest.skip("a kernel of one pixel has no phases")
  x, kernel = case(shape, side)
  weights = np.random.default_rng(1).normal(size=plain(x, kernel).shape).astype(np.float32)

  def value_and_gradients(function):
    return jax.jit(jax.value_and_grad(lambda *inputs: (function(*inputs) * weights).mean(), (0, 1)))

  with jax.default_matmul_precision("highest"):
    np.testing.assert_allclose(jax.jit(BODIES[body])(x, kernel), plain(x, kernel), atol=1e-5)
    computed = value_and_gradients(BODIES[body])(x, kernel)
    expected = value_and_gradients(plain)(x, kernel)
  for one, other in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("side", "ordinary"), [(3, nn.Conv(5, (3, 3))), (1, nn.Dense(5))])
def test_the_parameters_are_those_of_the_layer_that_it_replaces(side, ordinary):
  x = case((2, 6, 6, 4), side)[0]
  folded = layers.UpsampledConvolution(5, side)
  variables = ordinary.init(jax.random.key(0), x)
  fresh = folded.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, variables)
  expected = ordinary.apply(variables, layers.upsample_nearest(x))
  np.testing.assert_allclose(folded.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (2, 5, 4, 6)])
def test_stylegan2_doubles_alike_at_once_and_in_parities(shape):
  x, kernel = case(shape, 3)
  with jax.default_matmul_precision("highest"):
    bodies = (stylegan2._doubling_at_once, stylegan2._doubling_in_parities)
    (at_once, back_at_once), (in_parities, back) = (jax.vjp(body, x, kernel) for body in bodies)
    assert at_once.shape == (shape[0], 2 * shape[1], 2 * shape[2], 5)
    np.testing.assert_allclose(at_once, in_parities, atol=1e-5)
    weights = np.random.default_rng(1).normal(size=at_once.shape).astype(np.float32)
    for one, other in zip(back_at_once(weights), back(weights), strict=True):
      np.testing.assert_allclose(one, other, atol=1e-4)
