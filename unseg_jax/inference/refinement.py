"""Optional refinement: aligns probabilities with the edges of the image.

It is off by default, since the paper (arXiv 2105.08127) reports unrefined masks. OpenCV provides
the guided filter and GrabCut. A bilateral solver and a dense conditional random field (CRF) are not
offered: OpenCV's packages on PyPI are built without the solver, and no maintained package of a
dense CRF supports current Python.
"""

import functools
import types

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue, MissingPackage

METHODS = ("none", "guided", "grabcut")

_MISSING = {
  "bilateral_solver": "OpenCV's packages on PyPI are built without it (it needs Eigen)",
  "crf": "no maintained dense CRF package supports current Python",
}

# As a fraction of the shorter side: 8 of the segmenter's 128 pixels, the size of its edge errors.
_RADIUS = 1 / 16
# A variance of grey values in [0, 255]. Regions with less variance are smoothed; edges are kept.
_EPSILON = 1e-3 * 255**2
# GrabCut keeps pixels whose class has at least this probability and decides the rest by colour.
_SURE = 0.99
_GRABCUT_ITERATIONS = 3


def refine(
  probability: Float[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"], method: str
) -> Float[np.ndarray, "h w"]:
  """Refines the mask of one picture.

  Args:
    probability: that each pixel is foreground, float32 in [0, 1].
    image: the picture.
    method: one of
      "none";
      "guided", the guided filter of He et al. (ECCV 2010), with a window radius of 1 / 16 of the
      shorter side;
      "grabcut", GrabCut of Rother et al. (SIGGRAPH 2004), which models the colours of foreground
      and background and cuts between them.

  Returns:
    A probability, float32 in [0, 1]. "none" returns `probability` itself; "grabcut" returns 0 or 1.

  Raises:
    ImportError: the method needs an OpenCV module that is not installed.
    ValueError: the method is unknown.
  """
  check_method(method)
  if method == "none":
    return probability
  if method == "grabcut":
    return _grabcut(probability, image)
  radius = max(1, round(_RADIUS * min(probability.shape)))
  # The guide stays in [0, 255]. With a guide in [0, 1], OpenCV 4.14 and 5.0 return the same blurred
  # mask for every epsilon up to 1e-3, which is worse than no refinement.
  refined = _ximgproc().guidedFilter(np.ascontiguousarray(image), probability, radius, _EPSILON)
  # Local linear models overshoot beside edges.
  return np.clip(refined, 0, 1)


def check_method(method: str) -> None:
  """Checks a method before any image is segmented.

  Raises:
    ImportError: the method needs an OpenCV module that is not installed.
    ValueError: the method is unknown.
  """
  if method not in METHODS:
    reason = f" ({_MISSING[method]})" if method in _MISSING else ""
    raise InvalidValue(f"refine={method!r} is not offered{reason}; use one of {', '.join(METHODS)}")
  if method == "guided":
    _ximgproc()
  if method == "grabcut":
    _opencv()


def _grabcut(probability: np.ndarray, image: np.ndarray) -> np.ndarray:
  cv2 = _opencv()
  labels = np.where(probability > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
  labels[probability > _SURE] = cv2.GC_FGD
  labels[probability < 1 - _SURE] = cv2.GC_BGD
  mask = probability > 0.5
  if mask.any() and not mask.all():  # GrabCut needs pixels of both classes.
    cv2.setRNGSeed(0)  # Its colour models start from random centres.
    models = np.zeros((1, 65)), np.zeros((1, 65))
    mode = cv2.GC_INIT_WITH_MASK
    cv2.grabCut(
      np.ascontiguousarray(image[..., ::-1]), labels, None, *models, _GRABCUT_ITERATIONS, mode
    )
  return ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)


@functools.cache
def _opencv() -> types.ModuleType:
  try:
    import cv2
  except ImportError as error:
    raise MissingPackage(
      f'refine="grabcut" needs OpenCV, which cannot be imported ({error}); install it with: '
      'pip install "opencv-contrib-python-headless<5"'
    ) from error
  return cv2


@functools.cache
def _ximgproc() -> types.ModuleType:
  try:
    from cv2 import ximgproc
  except ImportError as error:
    # pysodmetrics depends on opencv-python-headless, which lacks the module and installs into the
    # same folder. pip installs ours last; an installer that works in parallel may not.
    raise MissingPackage(
      f'refine="guided" needs cv2.ximgproc, which cannot be imported ({error}); install it with: '
      'pip install --force-reinstall --no-deps "opencv-contrib-python-headless<5"'
    ) from error
  return ximgproc
