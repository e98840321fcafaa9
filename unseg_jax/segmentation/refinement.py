"""Optional refinement of masks: probabilities are drawn to the edges of the picture.

Off by default, as the paper (arXiv 2105.08127) reports its masks unrefined. The guided filter is
OpenCV's. A bilateral solver and a dense conditional random field (CRF) are not offered: OpenCV's
packages on PyPI are built without its bilateral solver, and no dense CRF that is still maintained
comes as a package for current versions of Python.
"""

import functools
import types

import numpy as np

METHODS = ("none", "guided")

_MISSING = {
  "bilateral_solver": "OpenCV's packages on PyPI are built without it (it needs Eigen)",
  "crf": "no maintained dense CRF comes as a package for current versions of Python",
}

# Of the shorter side: 8 of the 128 pixels that the segmenter sees, hence the errors of its edges.
_RADIUS = 1 / 16
# A variance of grey values in [0, 255]; regions that vary less are smoothed, edges are kept.
_EPSILON = 1e-3 * 255**2


def refine(probability: np.ndarray, image: np.ndarray, method: str) -> np.ndarray:
  """Refines the mask of one picture.

  Args:
    probability: float32 [H, W] in [0, 1], how likely each pixel is foreground.
    image: uint8 [H, W, 3], the picture.
    method: "none", or "guided": the guided filter of He et al. (ECCV 2010), whose windows reach
      1 / 16 of the shorter side.

  Returns:
    float32 [H, W] in [0, 1]; with "none", `probability` itself.

  Raises:
    ImportError: if the method needs OpenCV's contributed modules and they are not installed.
    ValueError: if there is no such method.
  """
  check_method(method)
  if method == "none":
    return probability
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
    raise ValueError(f"refine={method!r} is not offered{reason}; use one of {', '.join(METHODS)}")
  if method != "none":
    _ximgproc()


@functools.cache
def _ximgproc() -> types.ModuleType:
  try:
    from cv2 import ximgproc
  except ImportError as error:
    # opencv-python-headless, which pysodmetrics asks for, lacks the module and fills the same
    # folder. pip puts ours on top; installers that work in parallel may not.
    raise ImportError(
      f'refine="guided" needs cv2.ximgproc, which cannot be imported ({error}); install it with: '
      'pip install --force-reinstall --no-deps "opencv-contrib-python-headless<5"'
    ) from error
  return ximgproc
