"""U-Nets' state dicts."""

import re

import jax
import numpy as np
import pytest
from whole_runs import GOLDEN

from checkpoints_convert import unet


def small_unet():
  """A state dict with the reference U-Net's keys and an eighth of its channels."""
  random = np.random.default_rng(0)
  state_dict = {}
  for entry in np.load(GOLDEN / "unet.npz")["keys"]:
    key, _, shape = entry.partition(":")
    shape = [int(size) // 8 if int(size) >= 64 else int(size) for size in shape.split(",") if size]
    state_dict[key] = random.random(shape, np.float32)
  return state_dict


def test_a_unets_arrays_all_reach_their_place():
  state_dict = small_unet()
  variables = unet.variables_from_state_dict(state_dict)
  params, stats = variables["params"], variables["batch_stats"]
  blocks = {"inc", *(f"{way}_{i}" for way in ("down", "up") for i in (1, 2, 3, 4))}
  assert params.keys() == blocks | {"out"}
  assert stats.keys() == blocks
  pairs = {
    "inc.double_conv.3.weight": params["inc"]["conv_2"]["kernel"].transpose(3, 2, 0, 1),
    "down2.maxpool_conv.1.double_conv.0.bias": params["down_2"]["conv_1"]["bias"],
    "down4.maxpool_conv.1.double_conv.1.weight": params["down_4"]["norm_1"]["scale"],
    "up1.conv.double_conv.4.bias": params["up_1"]["norm_2"]["bias"],
    "up3.conv.double_conv.4.running_mean": stats["up_3"]["norm_2"]["mean"],
    "up4.conv.double_conv.1.running_var": stats["up_4"]["norm_1"]["var"],
    "outc.conv.weight": params["out"]["kernel"].transpose(3, 2, 0, 1),
  }
  for key, array in pairs.items():
    np.testing.assert_array_equal(array, state_dict[key])
  # Every array is used exactly once.
  arrays = [a for key, a in state_dict.items() if not key.endswith("num_batches_tracked")]
  assert sorted(float(a.sum(dtype=np.float64)) for a in arrays) == pytest.approx(
    sorted(float(a.sum(dtype=np.float64)) for a in jax.tree.leaves(variables))
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"outc.conv.bias": None}, "missing keys: outc.conv.bias"),
    ({"outc.conv.bias": np.ones(3)}, "outc.conv.bias has shape [3], expected [2]"),
    (
      {"up1.conv.double_conv.0.weight": np.ones((32, 96, 3, 3))},
      "up1.conv.double_conv.0.weight has shape [32, 96, 3, 3], expected [32, 128, 3, 3]",
    ),
  ],
)
def test_a_state_dict_that_is_not_quite_a_unet_is_refused(changes, message):
  state_dict = {k: a for k, a in (small_unet() | changes).items() if a is not None}
  with pytest.raises(ValueError, match=re.escape(message)):
    unet.variables_from_state_dict(state_dict)
