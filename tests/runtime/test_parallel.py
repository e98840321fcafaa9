"""Batches wait on the devices, at most as many as requested."""

import jax
import numpy as np
import pytest

from unseg_jax.runtime import parallel


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_batches_are_on_the_devices_ahead_of_their_turn(depth):
  taken = []

  def batches():
    for number in range(5):
      taken.append(number)
      yield parallel.shard({"image": np.full((parallel.local_device_count(), 2), number)})

  upcoming = parallel.ahead(batches(), depth)
  assert not taken
  for number, batch in enumerate(upcoming):
    assert taken == list(range(min(5, number + depth)))
    assert isinstance(batch["image"], jax.Array)
    np.testing.assert_array_equal(
      jax.device_get(batch["image"]), np.full_like(batch["image"], number)
    )
  assert number == 4


def test_batches_made_on_the_devices_stay_as_they_are():
  made = {
    "image": parallel.replicate(np.arange(3)),
    "pairs": np.zeros((parallel.local_device_count(), 1)),
  }
  (batch,) = parallel.ahead([made])
  assert batch["image"] is made["image"] and isinstance(batch["pairs"], jax.Array)


def test_an_unreplicated_state_keeps_its_shapes_and_types():
  state = {"step": np.zeros((), np.int32), "weights": np.ones((2, 3), np.float32), "none": None}
  fetched = parallel.unreplicate(parallel.replicate(state))
  for name in ("step", "weights"):
    assert type(fetched[name]) is np.ndarray and fetched[name].dtype == state[name].dtype
    np.testing.assert_array_equal(fetched[name], state[name])


@pytest.mark.parametrize("seed", [0, 5, 2**31, 2**32 - 1, 2**33 + 7, -1])
def test_keys_are_those_of_jax(seed):
  key = jax.random.fold_in(jax.random.key(seed), 3)
  assert parallel.fold_in(parallel.key(seed), 3) == key
