"""Shapes and types of arrays in signatures, such as `Float[Array, "n h w 3"]`.

jaxtyping's names, which the tests check at run time (its import hook with beartype). It is needed
for nothing else: where it is not installed, an annotation is the array's type alone.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["AnyArray", "Array", "Bool", "Float", "Int", "Key", "Num", "Shaped", "UInt8"]

if TYPE_CHECKING:
  from jax import Array
  from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8

  # What functions take that run on the devices, and may be given what lies on the host.
  AnyArray = Array | np.ndarray
else:

  def __getattr__(name: str) -> Any:
    """Imports the types of JAX's arrays when they are first used (PEP 562)."""
    if name not in ("Array", "AnyArray"):
      raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import jax

    globals().update(Array=jax.Array, AnyArray=jax.Array | np.ndarray)
    return globals()[name]

  try:
    from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8
  except ModuleNotFoundError:

    class _Unchecked:
      def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]

    Bool = Float = Int = Key = Num = Shaped = UInt8 = _Unchecked
