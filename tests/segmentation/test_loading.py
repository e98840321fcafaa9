"""Pieces of training batches, in this process and in worker processes."""

import numpy as np
import pytest

from unseg_jax.runtime import workers
from unseg_jax.segmentation import loading
from unseg_jax.synthesis import records, shards


@pytest.mark.parametrize("workers_count", [0, 1])
@pytest.mark.parametrize("size", [16, 24])
def test_loads_pairs_in_the_order_asked_for(tmp_path, workers_count, size):
  path = shards.shard_path(tmp_path, "train", 0)
  masks = np.arange(24 * 24).reshape(24, 24) < np.array([100, 200, 300])[:, None, None]
  images = np.repeat(np.where(masks, 200, 20).astype(np.uint8)[..., None], 3, axis=-1)
  shards.write_shard(path, records.encode_all(images, masks, np.zeros(3), np.arange(3)), {})
  with workers.executor(workers_count) as pool:
    batch = pool.submit(loading.load, [(str(path), 2), (str(path), 0)], size).result()
  assert batch["image"].shape == (2, size, size, 3) and batch["image"].dtype == np.uint8
  assert batch["mask"].shape == (2, size, size, 1)
  assert set(np.unique(batch["mask"])) == {0, 255}  # Resizing adds no intermediate values.
  shares = (batch["mask"] > 0).mean((1, 2, 3))
  np.testing.assert_allclose(shares, [300 / 576, 100 / 576], atol=0.02)
  bright = batch["image"].mean(-1, keepdims=True) > 110
  assert (bright == (batch["mask"] > 0)).mean() > 0.95
