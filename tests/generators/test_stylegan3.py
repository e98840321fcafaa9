"""The converted StyleGAN3 network generates the original's latents and images."""

import functools
import importlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN, ROOT

from checkpoints_convert import stylegan3 as conversion
from checkpoints_convert import stylegan3_filters, torch_reader
from unseg_jax import generators
from unseg_jax.generators import style_latents, stylegan3

NETWORKS = ("t", "r")


@functools.cache
def golden(name):
  return dict(np.load(GOLDEN / f"stylegan3_{name}.npz"))


def golden_checkpoint(name="t", **changes):
  """A small network's checkpoint with keys replaced, or removed for None."""
  checkpoint = torch_reader.read(GOLDEN / f"stylegan3_{name}.pth")
  arrays = checkpoint["G_ema_state_dict"] | changes
  arrays = {key: array for key, array in arrays.items() if array is not None}
  return checkpoint | {"G_ema_state_dict": arrays}


@functools.cache
def converted(name):
  return conversion.convert(golden_checkpoint(name), {})


@functools.cache
def make_generator(name, **options):
  _, config, variables = converted(name)
  return stylegan3.build({**config, **options}, variables, "small")


@functools.cache
def compiled(name):
  """The images of two latents, by a program compiled once for all tests."""
  generate = make_generator(name).generate
  with jax.default_matmul_precision("highest"):
    shapes = (make_generator(name).variables, golden(name)["w"], jnp.zeros(2, jnp.int32))
    program = jax.jit(generate).lower(*shapes).compile()
  return lambda variables, latents: program(variables, latents, jnp.zeros(2, jnp.int32))


@functools.cache
def layer_results(name):
  _, config, _ = converted(name)
  network = stylegan3.make_synthesis(config)

  @jax.jit
  def run(variables, latents):
    return network.apply(variables, latents, capture_intermediates=True)[1]["intermediates"]

  with jax.default_matmul_precision("highest"):
    return run(make_generator(name).variables, golden(name)["w_truncated"][:1])


def test_the_mapping_network_gives_the_original_latents():
  for name in NETWORKS:
    _, config, variables = converted(name)
    expected = golden(name)
    for psi, cutoff, latents in (
      (1, None, "w"),
      (0.5, None, "w_truncated"),
      (0.5, 8, "w_truncated_cutoff8"),
    ):
      mapping = style_latents.Mapping(
        tuple(config["mapping_widths"]),
        expected["w"].shape[1],
        config["num_classes"],
        config["class_features"],
        psi,
        cutoff,
      )
      with jax.default_matmul_precision("highest"):
        found = mapping.apply(
          {"params": variables["params"]["mapping"]}, expected["z"], expected.get("label")
        )
      np.testing.assert_allclose(found, expected[latents], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_synthesis_network_makes_the_original_images(name):
  generator, expected = make_generator(name), golden(name)
  assert generator.image_size == 32
  assert generator.latent_shape == expected["w"].shape[1:]
  for latents, image in (
    ("w_truncated", "image"),
    ("w", "image_untruncated"),
    ("w_truncated_cutoff8", "image_cutoff8"),
  ):
    images = compiled(name)(generator.variables, expected[latents])
    assert (images.shape, images.dtype) == ((2, 32, 32, 3), jnp.float32)
    np.testing.assert_allclose(images, expected[image], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stored_motion_of_the_images_is_converted(name):
  expected = golden(name)
  for motion in ("rotated", "shrunk"):
    transform = {"synthesis.input.transform": expected[f"transform_{motion}"]}
    _, _, variables = conversion.convert(golden_checkpoint(name, **transform), {})
    images = compiled(name)({"params": variables["params"]["synthesis"]}, expected["w_truncated"])
    np.testing.assert_allclose(images, expected[f"image_{motion}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_makes_what_the_original_makes(name):
  expected = golden(name)
  names = [layer["name"] for layer in json.loads(str(expected["layers"]))]
  compared = 0
  ours = ["features", *(f"layer_{i}" for i in range(len(names) - 1)), "colours"]
  for our_name, their_name in zip(ours, ["input", *names], strict=True):
    if f"act_{their_name}" in expected:
      found = layer_results(name)[our_name]["__call__"][0][0]
      np.testing.assert_allclose(found, expected[f"act_{their_name}"], atol=1e-4, rtol=0)
      compared += 1
  assert compared == 4


def test_sizes_and_sampling_rates_are_the_original_ones():
  for name in NETWORKS:
    _, config, _ = converted(name)
    layers = json.loads(str(golden(name)["layers"]))
    for layer, sizes in zip(layers, config["activations"], strict=False):
      for ours, theirs in (("size", "out_size"), ("up", "up"), ("down", "down")):
        assert sizes[ours] == layer[theirs]
      assert (sizes["up_taps"], sizes["down_taps"]) == (layer["up_taps"], layer["down_taps"])
      assert sizes["padding"] == layer["padding"][0]
      assert (sizes["rank"] > 1) == layer["radial"]


def test_latents_of_a_conditional_network_come_mapped_and_truncated():
  options = ({"truncation_psi": 1}, {"truncation_psi": 0, "truncation_cutoff": None})
  variants = [make_generator("r", **chosen) for chosen in options]
  full, average = (
    generators.sample_at(variant, jax.random.key(0), jnp.arange(4))[0] for variant in variants
  )
  assert variants[0].num_classes is None
  assert full.shape == (4, 9, 24)
  np.testing.assert_array_equal(full, np.repeat(full[:, :1], 9, axis=1))
  expected = np.broadcast_to(golden("r")["w_avg"], average.shape)
  np.testing.assert_allclose(average, expected, atol=1e-6)
  with pytest.raises(ValueError, match=r"generator_options\.truncation_psi='half': expected"):
    make_generator("r", truncation_psi="half")


def test_bfloat16_makes_nearly_the_same_images():
  generator = make_generator("t")
  half = generators.with_dtype(generator, "bfloat16")
  latents, expected = golden("t")["w_truncated"], golden("t")["image"]
  images = jax.jit(half.generate)(half.variables, jnp.asarray(latents), jnp.zeros(2, jnp.int32))
  assert images.dtype == jnp.float32
  assert 0 < np.abs(images - expected).mean() < 0.02 * np.abs(expected).max()


def attributes(name):
  """The attributes of a pickle's modules that the converter reads."""
  found = {"synthesis.margin_size": 10, "synthesis.output_scale": 0.25}
  clamp = json.loads(str(golden(name)["config"])).get("conv_clamp", 256)
  names = {"up_factor": "up", "up_taps": "up_taps", "out_sampling_rate": "out_rate"}
  names |= {"out_cutoff": "out_cutoff", "out_half_width": "out_half_width"}
  for layer in json.loads(str(golden(name)["layers"])):
    prefix = f"synthesis.{layer['name']}"
    found |= {f"{prefix}.{ours}": layer[theirs] for ours, theirs in names.items()}
    found[f"{prefix}.conv_clamp"] = clamp
  return found | {"mapping.fc0.bias_gain": 0.01, "synthesis.input.affine.activation": "linear"}


@pytest.mark.parametrize("name", NETWORKS)
def test_settings_come_from_wherever_they_are(name):
  arrays = golden_checkpoint(name)["G_ema_state_dict"]
  pickled = {"G_ema": arrays, "attributes": attributes(name)}
  clamp = {"conv_clamp": converted(name)[1]["clamp"]}
  init_kwargs = json.loads(str(golden(name)["config"]))
  beside = arrays | {"init_kwargs": init_kwargs}
  cases = ((pickled, {}), (arrays, clamp), (arrays, init_kwargs), (beside, {}))
  for checkpoint, settings in cases:
    architecture, config, variables = conversion.convert(checkpoint, settings)
    assert (architecture, config) == converted(name)[:2]
    jax.tree.map(np.testing.assert_array_equal, variables, converted(name)[2])


def test_a_network_of_other_settings_makes_what_pytorch_makes(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
  twins = importlib.import_module("twins.stylegan3")
  settings = {"num_layers": 4, "num_critical": 1, "first_cutoff": 1.5, "first_stopband": 3}
  settings |= {"last_stopband_rel": 1.4, "conv_kernel": 1, "use_radial_filters": True}
  shapes = {"channel_base": 128, "channel_max": 6, "w_dim": 7, "z_dim": 5, "mapping_layers": 3}
  twin = twins.network(64, **settings, **shapes)
  generator = twins.converted(twin, settings)
  latents = np.random.default_rng(0).normal(size=(2, *generator.latent_shape)).astype(np.float32)
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, latents, jnp.zeros(2, jnp.int32))
  expected = twins.images(twin, latents)
  assert expected.std() > 0.02
  np.testing.assert_allclose(images, expected, atol=2e-5, rtol=0)
  with pytest.raises(ValueError, match=r"the settings .*give|is not the filter"):
    twins.converted(twin, {})


def test_radial_filters_are_sums_of_few_separable_ones():
  band = stylegan3_filters.Band(128, 35.0, 40.0)
  design = stylegan3_filters.design(band, band, 6, 2, is_radial=True)
  rows, columns = stylegan3_filters.decompose(design.down_filter)
  assert len(rows) < 6
  quarter = np.einsum("ra,rb->ab", rows, columns)
  np.testing.assert_allclose(quarter, design.down_filter[:6, :6], atol=1e-7)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"mapping.w_avg": None}, "missing keys: mapping.w_avg"),
    ({"synthesis.L3_52_16.weight": None}, "missing keys: synthesis.L3_52_16.weight"),
    ({"synthesis.L0_36_16.magnitude_ema": None}, "missing keys: synthesis.L0_36_16.magnitude_ema"),
    (
      {"synthesis.L8_32_3.bias": np.ones(1)},
      "L8_32_3.weight has shape [3, 8, 1, 1], expected [1, 8, 1, 1]",
    ),
    (
      {"synthesis.L1_36_16.magnitude_ema": np.zeros(())},
      "synthesis.L1_36_16.magnitude_ema is 0.0, expected a positive number",
    ),
    (
      {"synthesis.L1_36_16.up_filter": np.ones(12) / 12},
      "synthesis.L1_36_16.up_filter [12] is not the filter [12] that the settings give",
    ),
  ],
)
def test_a_checkpoint_that_is_not_quite_a_stylegan3_is_refused(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(golden_checkpoint(**changes), {})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"first_cutoff": 3}, "is not the filter"),
    ({"margin_size": 8}, "L0_36_16 makes 36 x 36 samples, but the settings give 32 x 32"),
    ({"margin_size": 8.5}, "margin_size is 8.5, expected a whole number of at least 0"),
    ({"output_scale": "1"}, "output_scale is '1', expected a positive number"),
    ({"lrelu_upsampling": 1}, "lrelu_upsampling is 1, expected a whole number of at least 2"),
    ({"img_resolution": 64}, "img_resolution is 64, but the arrays have 32"),
    ({"conv_clamp": 0}, "conv_clamp is 0, expected a positive number or null"),
    ({"psi": 1}, "unknown settings: psi; expected num_critical"),
  ],
)
def test_wrong_settings_are_named(settings, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(golden_checkpoint(), settings)


def test_every_published_network_has_an_address():
  assert len(conversion.VARIANTS) == 12
  start = r"https://api\.ngc\.nvidia\.com/v2/models/nvidia/research/stylegan3/versions/1/files/"
  for name, variant in conversion.VARIANTS.items():
    kind = name.split("-")[1]
    assert re.fullmatch(rf"{start}stylegan3-{kind}-\w+-(\d+)x\1\.pkl", variant.url)
