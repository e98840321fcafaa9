"""Arrays that travel between processes through shared memory arrive unchanged."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra import numpy as arrays_of

from unseg_jax.runtime import shared_arrays, workers

DTYPES = strategies.sampled_from([np.uint8, np.bool_, np.int32, np.float32])
ARRAYS = arrays_of.arrays(DTYPES, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=9))
# Views such as a crop or a transposed image, whose bytes do not lie in a row.
VIEWS = ARRAYS.map(lambda array: array.T[::2] if array.ndim else array)
VALUES = strategies.recursive(
  ARRAYS | VIEWS | strategies.text() | strategies.none(),
  lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
)


@hypothesis.given(
  VALUES, strategies.integers(0, 3000), strategies.integers(0, 200), strategies.booleans()
)
def test_value_survives_a_block_of_any_size(value, size, first, copy):
  block = np.zeros(size, np.uint8)
  packed = shared_arrays.pack(value, block, first)
  np.testing.assert_equal(shared_arrays.unpack(packed, block, copy), value)
  assert not block[:first].any()
  assert packed.end <= size


def test_a_copy_outlives_its_block():
  block = np.zeros(4096, np.uint8)
  packed = shared_arrays.pack(np.arange(8), block)
  taken = shared_arrays.unpack(packed, block, copy=True)
  block[:] = 255
  np.testing.assert_array_equal(taken, np.arange(8))


@pytest.mark.parametrize("size", [1000, shared_arrays.BLOCK_BYTES + 1])
def test_more_tasks_than_blocks_return_their_own_results(size):
  with workers.executor(2) as pool:
    tasks = [pool.submit(np.add, np.full(size, i, np.uint8), np.uint8(1)) for i in range(12)]
    results = [task.result() for task in tasks]
  for i, result in enumerate(results):
    np.testing.assert_array_equal(result, np.full(size, i + 1, np.uint8))
    result += 1  # The caller may change its results.


class Unreadable:
  """A result that cannot be read in the process that asked for it."""

  def __reduce__(self):
    return int, ("not a number",)


def test_tasks_that_cannot_be_sent_or_answered_fail_alone():
  with workers.executor(1) as pool:
    unsendable, unreadable = pool.submit(lambda: 1), pool.submit(Unreadable)
    fine = pool.submit(max, 1, 2)
    with pytest.raises(Exception, match="pickle"):
      unsendable.result()
    with pytest.raises(ValueError, match="not a number"):
      unreadable.result()
    assert fine.result() == 2


def test_leaving_cancels_the_tasks_that_have_not_started():
  with workers.executor(1) as pool:
    tasks = [pool.submit(max, i, 0) for i in range(100)]
  assert all(task.cancelled() or task.result() == i for i, task in enumerate(tasks))
