"""The two losses of the direction search (arXiv 2105.08127, section 3.1)."""

import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float

SOBEL_X = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def grey(images: Float[AnyArray, "*shape 3"]) -> Float[Array, "*shape"]:
  """Returns the luminance `0.2989 R + 0.5870 G + 0.1140 B` of images, in the images' range."""
  images = jnp.asarray(images)
  return 0.2989 * images[..., 0] + 0.5870 * images[..., 1] + 0.1140 * images[..., 2]


def outside_circle(shifted: Float[AnyArray, "n h w 3"]) -> Float[Array, ""]:
  """Mean of the grey image, weighted by each pixel's centred distance from the image centre.

  The loss is small when the border is dark and the centre is light. The distance map is
  `4 * (rho - mean(rho))` with `rho = sqrt(u^2 + v^2)` on the grid `linspace(-1, 1, size)^2`.

  Args:
    shifted: float32 images in [-1, 1], after the shift in latent space.
  """
  _, height, width, _ = shifted.shape
  rows, columns = jnp.meshgrid(
    *(jnp.linspace(-1.0, 1.0, side, dtype=jnp.float32) for side in (height, width)),
    indexing="ij",
  )
  rho = jnp.sqrt(rows**2 + columns**2)
  return jnp.mean(grey(shifted) * (4.0 * (rho - rho.mean()))[None])


def sobel_shift(
  images: Float[AnyArray, "n h w 3"], shifted: Float[AnyArray, "n h w 3"]
) -> Float[Array, ""]:
  """Mean squared change in edge strength between images and shifted images.

  The loss keeps the content of an image in place.

  Args:
    images: float32 images in [-1, 1], before the shift.
    shifted: images of the same latents after the shift.
  """
  return jnp.mean((gradient_magnitude(grey(shifted)) - gradient_magnitude(grey(images))) ** 2)


def gradient_magnitude(greys: Float[AnyArray, "n h w"]) -> Float[Array, "n h w"]:
  """Sobel magnitude `sqrt(gx^2 + gy^2 + 1e-6)` of grey images, with replicated borders.

  The 3 x 3 kernels are divided by 8, as in kornia's `sobel`.
  """
  _, height, width = greys.shape
  padded = jnp.pad(greys, ((0, 0), (1, 1), (1, 1)), mode="edge")

  def correlate(kernel):
    terms = [
      kernel[row][column] / 8.0 * padded[:, row : row + height, column : column + width]
      for row in range(3)
      for column in range(3)
      if kernel[row][column]
    ]
    return sum(terms[1:], terms[0])

  gradient_x = correlate(SOBEL_X)
  gradient_y = correlate(tuple(zip(*SOBEL_X, strict=True)))
  return jnp.sqrt(gradient_x**2 + gradient_y**2 + 1e-6)
