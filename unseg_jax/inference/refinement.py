"""Optional refinement of masks: probabilities are drawn to the edges of the picture.

Off by default, as the paper (arXiv 2105.08127) reports its masks unrefined. The guided filter and
GrabCut are OpenCV's. A bilateral solver and a dense conditional random field (CRF) are not offered:
OpenCV's packages on PyPI are built without its bilateral solver, and no dense CRF that is still
maintained comes as a package for current versions of Python.
"""

import functools
import types

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue, MissingPackage

METHODS = ("none", "guided", "grabcut")

_MISSING = {
  "bilateral_solver": "OpenCV's packages on PyPI are built without it (it needs Eigen)",
  "crf": "no maintained dense CRF comes as a package for current versions of Python",
}

# Of the shorter side: 8 of the 128 pixels that the segmenter sees, hence the errors of its edges.
_RADIUS = 1 / 16
# A variance of grey values in [0, 255]; regions that vary less are smoothed, edges are kept.
_EPSILON = 1e-3 * 255**2
# GrabCut keeps what is at least so likely foreground or background; the rest it decides by colour.
_SURE = 0.99
_GRABCUT_ITERATIONS = 3


def refine(
  probability: Float[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"], method: str
) -> Float[np.ndarray, "h w"]:
  """Refines the mask of one picture.

  Args:
    probability: that each pixel is foreground, float32 in [0, 1].
    image: the picture.
    method: "none"; or "guided": the guided filter of He et al. (ECCV 2010), whose windows reach
      1 / 16 of the shorter side; or "grabcut": GrabCut of Rother et al. (SIGGRAPH 2004), which
      models the colours of the picture's foreground and background and cuts between them.

  Returns:
    A probability, float32 in [0, 1]; with "none", `probability` itself; with "grabcut", 0 or 1.

  Raises:
    ImportError: if the method needs OpenCV's contributed modules and they are not installed.
    ValueError: if there is no such method.
  """
  check_method(method)
  if method == "none":
    return probability
  if method == "grabcut":
    return _grabcut(probability, image)
  radius = max(1, round(_RADIUS * min(probability.shape)))
  # The guide stays in [0, 255]: with one in [0, 1] the library (4.14, 5.0) gives the same blurred
  # mask for every epsilon up to 1e-3, worse than none.
  refined = _ximgproc().guidedFilter(np.ascontiguousarray(image), probability, radius, _EPSILON)
  # Local linear models overshoot beside edges.
  return np.clip(refined, 0, 1)


def check_method(method: str) -> None:
  """Raises what `refine` would raise for the method alone, before any picture is segmented.

  Raises:
    ImportError: if the method needs OpenCV's contributed modules and they are not installed.
    ValueError: if there is no such method.
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
  if mask.any() and not mask.all():  # There are colours of either to tell apart.
    cv2.setRNGSeed(0)  # Its models start from random centres.
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
    # opencv-python-headless, which pysodmetrics asks for, lacks the module and fills the same
    # folder. pip puts ours on top; installers that work in parallel may not.
    raise MissingPackage(
      f'refine="guided" needs cv2.ximgproc, which cannot be imported ({error}); install it with: '
      'pip install --force-reinstall --no-deps "opencv-contrib-python-headless<5"'
    ) from error
  return ximgproc
