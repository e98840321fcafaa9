"""The shapes in signatures are checked at every call in the tests."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from tiny_generator import tiny_generator

from unseg_jax import generators
from unseg_jax.direction import losses
from unseg_jax.synthesis import filters, masks

IMAGES = np.zeros((2, 4, 4, 3), np.float32)
MASKS = np.zeros((2, 4, 4), bool)


@pytest.mark.parametrize(
  ("call", "argument"),
  [
    (lambda: losses.outside_circle(IMAGES[0]), "shifted"),  # One image, no batch.
    (lambda: masks.lighting_mask(IMAGES, IMAGES[..., :2]), "shifted"),  # Two channels.
    (lambda: losses.sobel_shift(IMAGES, IMAGES[:, :3]), "shifted"),  # Another height.
    (lambda: masks.keep_large_components(MASKS.astype(np.float32)), "masks"),  # Not booleans.
    (lambda: filters.agreement(MASKS, MASKS[:1]), "masks_b"),  # Another number of masks.
  ],
)
def test_a_wrong_array_is_refused_by_the_name_of_its_argument(call, argument):
  with pytest.raises(TypeCheckError, match=f"typechecking parameter '{argument}'"):
    call()


def test_a_wrong_shape_is_caught_while_a_function_is_traced():
  with pytest.raises(TypeCheckError, match="typechecking parameter 'shifted'"):
    jax.eval_shape(losses.outside_circle, jax.ShapeDtypeStruct((4, 4, 3), jnp.float32))


def test_a_key_of_the_old_kind_is_refused():
  with pytest.raises(TypeCheckError, match="typechecking parameter 'key'"):
    generators.sample_at(tiny_generator(), jax.random.PRNGKey(0), jnp.arange(2))
