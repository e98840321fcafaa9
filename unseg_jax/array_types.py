"""Shapes and types of arrays in signatures, such as `Float[Array, "n h w 3"]`.

jaxtyping's names, which the tests check at run time (its import hook with beartype). It is needed
for nothing else: where it is not installed, an annotation is the array's type alone.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

__all__ = ["AnyArray", "Array", "Bool", "Float", "Int", "Key", "Num", "Shaped", "UInt8"]

# What functions take that run on the devices, and may be given what lies on the host.
AnyArray = jax.Array | np.ndarray

if TYPE_CHECKING:
  from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8
else:
  try:
    from jaxtyping import Bool, Float, Int, Key, Num, Shaped, UInt8
  except ModuleNotFoundError:

    class _Unchecked:
      def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
        return item[0]

    Bool = Float = Int = Key = Num = Shaped = UInt8 = _Unchecked
