"""StyleGAN2's settings come from the checkpoint, and other networks are refused."""

import re

import jax
import numpy as np
import pytest
from small_stylegan2 import (
  converted,
  golden_checkpoint,
  make_images,
  random_state,
  small_latents,
)

from checkpoints_convert import stylegan2 as conversion
from unseg_jax.generators import stylegan2


def test_activations_are_clamped_by_the_setting():
  checkpoint = {"G_ema": random_state(), "attributes": {"synthesis.b4.conv1.conv_clamp": None}}
  assert converted()[1]["clamp"] == 256
  assert conversion.convert(checkpoint, {})[1]["clamp"] is None
  _, config, variables = conversion.convert(checkpoint, {"conv_clamp": 0.1})
  images = make_images(stylegan2.build(config, variables, ""), small_latents())
  # Each of the two blocks adds at most 0.1, up to rounding.
  assert 0.1 < np.abs(images).max() < 0.2 + 1e-5


def test_a_learning_rate_multiplier_that_the_checkpoint_tells_is_used():
  attributes = {"mapping.fc0.bias_gain": 0.02}
  checkpoint = {"G_ema": golden_checkpoint(), "attributes": attributes}
  _, _, variables = conversion.convert(checkpoint, {})
  for name, layer in converted()[2]["params"]["mapping"].items():
    if name.startswith("dense"):
      doubled = variables["params"]["mapping"][name]
      jax.tree.map(lambda x, y: np.testing.assert_allclose(2 * x, y, rtol=1e-6), layer, doubled)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mapping.w_avg": None}, "missing keys: mapping.w_avg"),
    ({"synthesis.b64.conv1.weight": None}, "unexpected keys: synthesis.b64.resample_filter"),
    ({"mapping.fc8.weight": np.ones((32, 32))}, "missing keys: mapping.fc8.bias"),
    ({"synthesis.b4.torgb.bias": np.ones(1)}, "torgb.bias has shape [1], expected [3]"),
    (
      {"synthesis.b8.conv0.noise_const": np.ones((4, 4))},
      "synthesis.b8.conv0.noise_const has shape [4, 4], expected [8, 8]",
    ),
    ({"mapping.fc0.weight": np.ones((32, 16))}, "takes 16 features, expected more than the 20"),
    (
      {"synthesis.b8.conv0.resample_filter": np.ones((4, 4)) / 16},
      "synthesis.b8.conv0.resample_filter is not the filter [1, 3, 3, 1]",
    ),
  ],
)
def test_a_checkpoint_that_is_not_quite_a_stylegan2_is_refused(changes, message):
  if "20" in message:
    changes |= {"mapping.embed.weight": np.ones((20, 3)), "mapping.embed.bias": np.ones(20)}
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(golden_checkpoint(**changes), {})


@pytest.mark.parametrize(
  ("attributes", "settings", "message"),
  [
    ({"mapping.fc1.activation": "relu"}, {}, "mapping.fc1.activation is 'relu', expected 'lrelu'"),
    ({"a.conv_clamp": 1, "b.conv_clamp": 2}, {}, "different conv_clamp {1, 2}, expected the same"),
    ({}, {"conv_clamp": -1}, "conv_clamp is -1, expected a positive number or null: use --config="),
    ({}, {"conv_clamp": "256"}, "conv_clamp is '256', expected a positive number"),
    ({}, {"psi": 1}, "unknown settings: psi; expected conv_clamp"),
  ],
)
def test_a_network_that_is_not_supported_is_refused(attributes, settings, message):
  checkpoint = {"G_ema": golden_checkpoint(), "attributes": attributes}
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(checkpoint, settings)


def test_every_published_network_has_an_address():
  assert set(conversion.VARIANTS) == {
    f"stylegan2-{name}" for name in ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces")
  }
  for name, variant in conversion.VARIANTS.items():
    assert variant.url.endswith(f"/stylegan2-ada-pytorch/pretrained/{name[10:]}.pkl")
    conversion.convert(golden_checkpoint(), variant.settings)
