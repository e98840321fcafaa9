"""Array types for signatures, such as `Float[Array, "n h w 3"]`, by jaxtyping.

The tests check them at run time with jaxtyping's import hook and beartype. Without jaxtyping, an
annotation is the plain array type.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

__all__ = ["AnyArray", "Array", "Bool", "Float", "Int", "Key", "Num", "Shaped", "UInt8"]

if TYPE_CHECKING:
  from jax import Array
  from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8

  # For functions that run on the devices and also accept arrays on the host.
  AnyArray = Array | np.ndarray
else:

  def __getattr__(name: str) -> Any:
    """Imports JAX's array types on first use (PEP 562)."""
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
