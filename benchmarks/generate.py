"""Images per second of every published generator at its full size, with random weights.

python benchmarks/generate.py [--generators=biggan-deep-128,bigbigan-128] [--batch=4] [--memory]

On a GPU it also prints the share of the chip's bfloat16 matrix rate. Where PyTorch and
pytorch-pretrained-biggan are installed, BigGAN-deep runs beside them in the same run. `--memory`
prints instead what a search step with the config's batch and microbatch needs on one device, by the
compiled program's own analysis.
"""

import argparse
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from checkpoints_convert import biggan_deep as biggan_deep_format  # noqa: E402
from unseg_jax.direction import directions, search  # noqa: E402
from unseg_jax.generators import (  # noqa: E402
  ARCHITECTURES,
  Generator,
  biggan,
  biggan_deep,
  sample_at,
  selfcond,
  stylegan2,
)
from unseg_jax.runtime import parallel  # noqa: E402

# Dense bfloat16 matrix rates in FLOP/s, from NVIDIA's data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "V100": 125e12}
DEEP_WIDTH, DEEP_LATENT, DEEP_ATTENTION = 128, 128, 8


def deep(size: int) -> dict[str, Any]:
  """Hugging Face's BigGAN-deep, its statistics folded."""
  blocks = biggan_deep_format.VARIANTS[f"biggan-deep-{size}"].settings["layers"]
  layers = [["up" if up else "same", DEEP_WIDTH * out] for up, _, out in blocks]
  layers.insert(DEEP_ATTENTION, ["attention", DEEP_WIDTH * blocks[DEEP_ATTENTION][1]])
  return {
    "latent_size": DEEP_LATENT,
    "num_classes": 1000,
    "class_size": DEEP_LATENT,
    "bottom_features": DEEP_WIDTH * blocks[0][1],
    "layers": layers,
    "truncation": None,
  }


def style(size: int) -> dict[str, Any]:
  """NVIDIA's StyleGAN2, unconditional."""
  resolutions = [4 * 2**i for i in range(size.bit_length() - 2)]
  return {
    "z_dim": 512,
    "mapping_widths": [512] * 8,
    "num_classes": 0,
    "class_features": 0,
    "channels": [min(32768 // resolution, 512) for resolution in resolutions],
    "clamp": 256,
    "truncation_psi": 0.5,
    "truncation_cutoff": 8,
    "noise": "const",
  }


BIGGAN = {"widths": [1536, 1536, 768, 384, 192, 96], "latent_size": 120, "attention": [3]}
RESNET = {"widths": [1024, 1024, 512, 256, 128, 64], "latent_size": 128, "hierarchical": False}
# Name -> (architecture, its config, the config file that searches in it).
GENERATORS = {
  **{f"biggan-deep-{s}": ("biggan_deep", deep(s), f"biggan.py:{s}") for s in (128, 256, 512)},
  "bigbigan-128": (
    "biggan",
    BIGGAN | {"num_classes": None, "shared_size": None, "hierarchical": True},
    "bigbigan.py",
  ),
  "biggan-128": (
    "biggan",
    BIGGAN | {"num_classes": 1000, "shared_size": 128, "hierarchical": True},
    "bigbigan.py",
  ),
  "studiogan-sagan": (
    "biggan",
    RESNET | {"num_classes": 1000, "shared_size": None, "attention": [3]},
    "studiogan.py:sagan",
  ),
  "studiogan-sngan": (
    "biggan",
    RESNET | {"num_classes": 1000, "shared_size": None, "attention": []},
    "studiogan.py:sngan",
  ),
  "selfcondgan": (
    "selfcond",
    {
      "latent_size": 256,
      "size": 4,
      "widths": [1024, 1024, 512, 256, 128, 64],
      "num_classes": 100,
      "embedding_size": 256,
    },
    "selfcond.py",
  ),
  **{
    f"stylegan2-{size}": ("stylegan2", style(size), f"stylegan2.py:{data_set}")
    for size, data_set in ((512, "afhqcat"), (1024, "ffhq"))
  },
}


def random_generator(architecture: str, config: dict[str, Any]) -> Generator:
  """A generator with random weights of its full size."""
  latents, labels = jnp.zeros((1, config.get("latent_size", 0))), jnp.zeros((1,), jnp.int32)

  def init(module: Any, *inputs: jax.Array) -> dict[str, Any]:
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    generator = np.random.default_rng(0)

    def fill(leaf):
      fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 1
      return (generator.standard_normal(leaf.shape, np.float32) / np.sqrt(fan_in)).astype(
        np.float32
      )

    return jax.tree.map(fill, shapes)

  if architecture == "biggan_deep":
    attributes = ("num_classes", "class_size", "bottom_features")
    module = biggan_deep.BigGanDeep(
      **{name: config[name] for name in attributes}, layers=tuple(map(tuple, config["layers"]))
    )
    variables = init(module, latents, labels)
  elif architecture == "biggan":
    attributes = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    del attributes["latent_size"]
    variables = init(biggan.BigGan(**attributes), latents, labels)
  elif architecture == "selfcond":
    module = selfcond.SelfConditionedGenerator(
      tuple(config["widths"]), config["size"], config["num_classes"], config["embedding_size"]
    )
    variables = init(module, latents, labels)
  else:
    num_ws = 2 * len(config["channels"])
    mapping = stylegan2.Mapping(tuple(config["mapping_widths"]), num_ws)
    synthesis = stylegan2.Synthesis(tuple(config["channels"]), config["clamp"])
    variables = {
      "params": {
        "mapping": init(mapping, jnp.zeros((1, config["z_dim"])), labels)["params"],
        "synthesis": init(synthesis, jnp.zeros((1, num_ws, 512)))["params"],
      }
    }
  return ARCHITECTURES[architecture].build(config, variables, "random")


def median_seconds(run: Callable[[], Any], rounds: int) -> float:
  """Median of the rounds, after one call that is not counted."""
  run()
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
  return statistics.median(seconds)


def peak_rate() -> float | None:
  """The device's bfloat16 matrix rate in FLOP/s, or None if it is not known."""
  kind = jax.devices()[0].device_kind
  return next((rate for name, rate in PEAK.items() if name in kind), None)


def measure(name: str, batch: int, rounds: int) -> None:
  """Prints a generator's row."""
  architecture, config, _ = GENERATORS[name]
  generator = random_generator(architecture, config)
  latents, labels = sample_at(generator, jax.random.key(0), jnp.arange(batch))
  row = f"| {name:16} | {generator.image_size:4} |"
  for dtype in (jnp.float32, jnp.bfloat16):
    variables, cast = jax.device_put(
      jax.tree.map(lambda x, dtype=dtype: jnp.asarray(x, dtype), (generator.variables, latents))
    )
    compiled = (
      jax.jit(generator.generate)
      .lower(variables, cast, labels)
      .compile(compiler_options=parallel.compiler_options())
    )

    def run(compiled=compiled, variables=variables, cast=cast):
      jax.block_until_ready(compiled(variables, cast, labels))

    seconds = median_seconds(run, rounds)
    row += f" {batch / seconds:9.2f} |"
    flops = (compiled.cost_analysis() or {}).get("flops", 0)
  peak = peak_rate()
  share = f"{flops / seconds / peak:7.1%}" if peak else "      -"
  row += f" {share} | {torch_rate(name, batch, rounds)} |"
  print(row, flush=True)


def torch_rate(name: str, batch: int, rounds: int) -> str:
  """PyTorch's float32 images per second where there is a twin, for the table."""
  try:
    import torch
    from pytorch_pretrained_biggan import BigGAN, BigGANConfig
  except ImportError:
    return "        -"
  if not name.startswith("biggan-deep"):
    return "        -"
  size = int(name.rpartition("-")[2])
  layers = biggan_deep_format.VARIANTS[name].settings["layers"]
  config = BigGANConfig(
    output_dim=size, layers=layers, attention_layer_position=DEEP_ATTENTION, num_classes=1000
  )
  device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
  twin = BigGAN(config).eval().to(device)
  latents = torch.randn(batch, DEEP_LATENT, device=device)
  classes = torch.nn.functional.one_hot(torch.arange(batch), 1000).float().to(device)

  def run():
    with torch.no_grad():
      twin(latents, classes, 0.4).sum().item()

  return f"{batch / median_seconds(run, rounds):9.2f}"


def memory(name: str) -> None:
  """Prints what a search step with the batch and microbatch of the generator's config needs."""
  architecture, config, config_file = GENERATORS[name]
  file, _, argument = config_file.partition(":")
  module = importlib.import_module(f"configs.{file.removesuffix('.py')}")
  settings = module.get_config(*([argument] if argument else [])).search
  generator = random_generator(architecture, config)
  latents, labels = jax.eval_shape(
    lambda: sample_at(generator, jax.random.key(0), jnp.arange(settings.batch_size))
  )
  start = directions.initial(jax.random.key(1), settings.directions, generator.latent_shape)
  state = search.initial_state(settings, start[None])
  one_device = jax.pmap(
    search.make_step(generator, settings), axis_name=parallel.AXIS, devices=jax.devices()[:1]
  )
  arguments = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
    (state, generator.variables, latents, labels, latents),
  )
  found = one_device.lower(*arguments).compile().memory_analysis()
  total = (found.temp_size_in_bytes + found.argument_size_in_bytes) / 2**30
  print(
    f"{name}: search step, batch {settings.batch_size}, microbatch {settings.microbatch or 'all'}: "
    f"{total:.1f} GiB on {jax.devices()[0].device_kind}",
    flush=True,
  )


def main() -> None:
  """Runs the measurements and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--generators", default=",".join(GENERATORS), help="names, comma-separated")
  parser.add_argument("--batch", type=int, default=4)
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--memory", action="store_true", help="of the search, instead of rates")
  arguments = parser.parse_args()
  names = arguments.generators.split(",")
  if unknown := set(names) - set(GENERATORS):
    parser.error(f"unknown generators {sorted(unknown)}; expected {', '.join(GENERATORS)}")
  if arguments.memory:
    for name in names:
      memory(name)
    return
  print(f"{jax.devices()[0].device_kind}, batch {arguments.batch}, {arguments.rounds} rounds")
  print("images per second:")
  print("| generator        | size |   float32 |  bfloat16 |   share |   PyTorch |")
  print("| ---------------- | ---: | --------: | --------: | ------: | --------: |")
  for name in names:
    measure(name, arguments.batch, arguments.rounds)


if __name__ == "__main__":
  main()
