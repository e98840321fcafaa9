"""Times this package beside PyTorch on the same CPU, in one run.

python benchmarks/compare_pytorch.py [--rounds 5]

Each measurement has a twin in PyTorch: the same network with the same weights, the same batch, the
same number of threads. The two are first checked to compute the same; then they take turns, so that
whatever else the machine does hits both. The table holds medians over the rounds, and as the ratio
PyTorch's time divided by JAX's: above 1, JAX is faster. Nothing is written to disk.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.measure
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from checkpoints_convert.unet import variables_from_state_dict  # noqa: E402
from configs import dcgan_faces  # noqa: E402
from unseg_jax import generators
from unseg_jax.direction import directions, search
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import train
from unseg_jax.segmentation.unet import Unet  # noqa: E402
from unseg_jax.synthesis import candidates

SEARCH_BATCH, CHUNK, TRAIN_BATCH, TRAIN_SIZE = 32, 64, 16, 64
WIDTHS = (64, 128, 256, 512, 512)
SEARCH_STEPS = 4  # Steps in one timing.


def interleave(rounds: int, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
  """Median seconds of each run; they take turns, after one call each that is not counted."""
  seconds = {name: [] for name in runs}
  for number in range(rounds + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      if number:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in seconds.items()}


# The twins.


def torch_generator(variables: dict[str, Any]) -> nn.Sequential:
  """The DCGAN with the folded weights: `[N, latent_size, 1, 1] -> [N, 3, 64, 64]`."""
  layers = []
  for name, layer in variables["params"].items():
    first = name == "project"
    kernel = torch.tensor(
      layer["kernel"].transpose(0, 3, 1, 2) if first else layer["kernel"].transpose(2, 3, 0, 1)
    ).contiguous()
    convolution = nn.ConvTranspose2d(
      *kernel.shape[:2], 4, *((1, 0) if first else (2, 1)), bias="bias" in layer
    )
    convolution.weight = nn.Parameter(kernel)
    if "bias" in layer:
      convolution.bias = nn.Parameter(torch.tensor(layer["bias"]))
    layers += [convolution, nn.ReLU()]
  return nn.Sequential(*layers[:-1], nn.Tanh()).eval().requires_grad_(False)


def torch_grey(images: torch.Tensor) -> torch.Tensor:
  red, green, blue = images.unbind(1)
  return 0.2989 * red + 0.5870 * green + 0.1140 * blue


def torch_distance(size: int) -> torch.Tensor:
  line = torch.linspace(-1, 1, size)
  rho = torch.sqrt(line[:, None] ** 2 + line[None] ** 2)
  return 4 * (rho - rho.mean())


SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
SOBEL = torch.stack([SOBEL, SOBEL.T])[:, None]


def torch_magnitude(greys: torch.Tensor) -> torch.Tensor:
  edges = F.conv2d(F.pad(greys[:, None], (1, 1, 1, 1), mode="replicate"), SOBEL)
  return torch.sqrt((edges**2).sum(1) + 1e-6)


class TorchSearch:
  """The search of the reference implementation: Adam, then back to unit length."""

  def __init__(self, generator: nn.Module, config: Any, direction: np.ndarray):
    self.generator, self.config = generator, config
    self.distance = torch_distance(64)
    self.direction = nn.Parameter(torch.tensor(np.asarray(direction)))
    self.optimizer = torch.optim.Adam([self.direction], lr=config.learning_rate)

  def step(self, latents: torch.Tensor, radii: torch.Tensor) -> tuple[float, float]:
    unit = self.direction / self.direction.norm(dim=1, keepdim=True)
    with torch.no_grad():
      images = self.generator(latents[..., None, None])
    shifted = self.generator((latents + radii * unit)[..., None, None])
    grey = torch_grey(shifted)
    circle = self.config.circle_weight * (grey * self.distance).mean()
    change = torch_magnitude(grey) - torch_magnitude(torch_grey(images))
    sobel = self.config.sobel_weight * (change**2).mean()
    self.optimizer.zero_grad()
    (circle + sobel).backward()
    self.optimizer.step()
    with torch.no_grad():
      self.direction /= self.direction.norm(dim=1, keepdim=True)
    return circle.item(), sobel.item()


def torch_candidates(generator, config, direction, latents) -> list[tuple[np.ndarray, np.ndarray]]:
  """Both images as a batch, then mask, components, area and histogram, image by image.

  Returns for each candidate its uint8 image and its mask, or None in place of those rejected.
  """
  with torch.no_grad():
    images = generator(latents[..., None, None])
    shifted = generator((latents + config.shift * direction)[..., None, None])
    found = (torch_grey(shifted) > torch_grey(images)).numpy()
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
  results = []
  for image, values, mask in zip(pixels, shifted.numpy(), found, strict=True):
    labels = skimage.measure.label(mask, connectivity=2)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    mask = (areas > config.components * areas.max())[labels]
    low, high = config.area
    accepted = low <= mask.mean() <= high and histogram_maxima(values, config) >= (
      config.histogram_maxima
    )
    results.append((image, mask) if accepted else None)
  return results


def histogram_maxima(values: np.ndarray, config: Any) -> int:
  counts, _ = np.histogram(values, bins=config.histogram_bins, range=(-1, 1))
  smooth = np.convolve(counts, np.ones(3, int), mode="same")
  padded = np.pad(smooth, 1, constant_values=-1)
  return int(((smooth >= padded[:-2]) & (smooth >= padded[2:])).sum())


class TorchBlock(nn.Module):
  """Twice: 3 x 3 convolution, batch norm, ReLU."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    layers = []
    for size in (inputs, outputs):
      layers += [nn.Conv2d(size, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    self.double_conv = nn.Sequential(*layers)

  def forward(self, x):
    return self.double_conv(x)


class TorchUnet(nn.Module):
  """The segmentation U-Net, `[N, 3, H, W] -> [N, 2, H, W]`, its modules named as upstream's."""

  def __init__(self):
    super().__init__()
    self.inc = TorchBlock(3, WIDTHS[0])
    ups = (256, 128, 64, 64)
    channels = WIDTHS[-1]
    for i in range(1, 5):
      down, up = nn.Module(), nn.Module()
      down.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), TorchBlock(WIDTHS[i - 1], WIDTHS[i]))
      up.conv = TorchBlock(channels + WIDTHS[4 - i], ups[i - 1])
      channels = ups[i - 1]
      setattr(self, f"down{i}", down)
      setattr(self, f"up{i}", up)
    self.outc = nn.Module()
    self.outc.conv = nn.Conv2d(channels, 2, 1)

  def forward(self, x):
    levels = [self.inc(x)]
    for i in range(1, 5):
      levels.append(getattr(self, f"down{i}").maxpool_conv(levels[-1]))
    x = levels.pop()
    for i in range(1, 5):
      x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
      x = getattr(self, f"up{i}").conv(torch.cat([levels.pop(), x], dim=1))
    return self.outc.conv(x)


# The measurements. Each prints how far the twins differ and returns rows of the table.


def measure_search(rounds: int, config: Any, generator: Any, twin: nn.Module) -> list[tuple]:
  """The search step at batch 32, with its drawing of latents and radii."""
  config = config.search
  start = directions.normalise(directions.initial(jax.random.key(0), 1, generator.latent_shape))
  update = search.make_step(generator, config)
  variables = parallel.replicate(generator.variables)
  indices = np.arange(SEARCH_BATCH)
  draw_key = jax.random.key(1)

  def draw(step, indices):
    return search.draw(generator, config, jax.random.fold_in(draw_key, step), indices)

  def draw_and_step(state, variables, indices):
    return update(state, variables, *draw(state.step, indices))

  step = parallel.pmap(draw_and_step, donate_argnums=(0,))
  state = parallel.replicate(search.initial_state(config, start[None]))
  torch_search = TorchSearch(twin, config, start)
  worst = 0.0
  for i in range(3):
    latents, _, radii = (torch.tensor(np.asarray(x)) for x in draw(i, jnp.asarray(indices)))
    expected = torch_search.step(latents, radii)
    state, parts = step(state, variables, parallel.shard(indices))
    parts = parallel.unreplicate(parts)
    found = (float(parts["outside_circle"]), float(parts["sobel_shift"]))
    worst = max(worst, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
  apart = np.abs(
    parallel.unreplicate(state).directions[0] - torch_search.direction.detach().numpy()
  )
  print(f"search: losses differ by {worst:.1e}, the direction by {apart.max():.1e} after 3 steps")

  def run_jax():
    nonlocal state
    for _ in range(SEARCH_STEPS):
      state, parts = step(state, variables, parallel.shard(indices))
      jax.device_get(parts)

  def run_torch():
    for _ in range(SEARCH_STEPS):
      latents = torch.randn(SEARCH_BATCH, *generator.latent_shape)
      radii = (2 + 0.5 * torch.randn_like(latents)).clamp(min=0.1)
      torch_search.step(latents, radii)

  seconds = interleave(rounds, {"jax": run_jax, "torch": run_torch})
  times = [value / SEARCH_STEPS for value in seconds.values()]
  return [("search step, batch 32", "ms", *(1e3 * t for t in times), times[1] / times[0])]


def measure_pairs(rounds: int, config: Any, generator: Any, twin: nn.Module) -> list[tuple]:
  """Kept pairs per second in chunks of 64, from drawing to arrays on the host."""
  config = config.generate
  config.roundness = 0.0  # The twin has the reference's default filters only.
  golden = np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")
  direction = golden["d"][-1:]
  torch_direction = torch.tensor(direction)
  key = jax.random.key(2)
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  variables, replicated = parallel.replicate(generator.variables), parallel.replicate(direction)
  keys = parallel.replicate(key)
  number = 0

  def run_jax():
    nonlocal number
    indices = np.arange(number * CHUNK, (number + 1) * CHUNK)
    number += 1
    chunk = parallel.unshard(compute(variables, replicated, keys, parallel.shard(indices)))
    accepted = chunk["verdicts"]["all"]
    return chunk["image"][accepted], chunk["mask"][accepted], accepted

  def run_torch():
    latents = torch.randn(CHUNK, *generator.latent_shape)
    return torch_candidates(twin, config, torch_direction, latents)

  agreed, pixels_apart, kept, chunks = 0, 0.0, 0, 4
  for i in range(chunks):
    latents, _ = generators.sample_at(generator, key, jnp.arange(i * CHUNK, (i + 1) * CHUNK))
    expected = torch_candidates(twin, config, torch_direction, torch.tensor(np.asarray(latents)))
    _, found, accepted = run_jax()
    found = dict(zip(np.flatnonzero(accepted), found, strict=True))
    agreed += sum((e is not None) == bool(a) for e, a in zip(expected, accepted, strict=True))
    pixels_apart += sum(
      (e[1] != found[j]).mean() for j, e in enumerate(expected) if e and j in found
    )
    kept += int(accepted.sum())
  share = kept / (chunks * CHUNK)
  print(
    f"pairs: {agreed} of {chunks * CHUNK} verdicts agree, the masks' pixels differ by "
    f"{pixels_apart / max(kept, 1):.1e}; {share:.0%} are kept"
  )
  times = list(interleave(rounds, {"jax": run_jax, "torch": run_torch}).values())
  rates = (share * CHUNK / t for t in times)
  return [("kept pairs, chunks of 64", "pairs/s", *rates, times[1] / times[0])]


def measure_training(rounds: int, config: Any) -> list[tuple]:
  """Training steps of the full-width U-Net at batch 16, 64 x 64."""
  config = copy.deepcopy(config.train)
  config.update(
    {"widths": WIDTHS, "image_size": TRAIN_SIZE, "batch_size": TRAIN_BATCH, "learning_rate": 1e-3}
  )
  config.schedule = "staircase"
  torch.manual_seed(0)
  network = TorchUnet()
  start = copy.deepcopy(network.state_dict())
  arrays = {k: v.numpy().copy() for k, v in network.state_dict().items()}
  variables = variables_from_state_dict(arrays)
  generator = np.random.default_rng(0)
  shape = (TRAIN_BATCH, TRAIN_SIZE, TRAIN_SIZE)
  pixels = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
  mask = 255 * generator.integers(0, 2, (*shape, 1), dtype=np.uint8)
  images = torch.tensor(pixels.transpose(0, 3, 1, 2)).float() / 127.5 - 1
  targets = torch.tensor(mask[..., 0] > 127).long()

  with torch.no_grad():
    expected = network.eval()(images).permute(0, 2, 3, 1).numpy()
  found = parallel.jit(Unet(WIDTHS).apply)(variables, pixels.astype(np.float32) / 127.5 - 1)
  print(f"U-Net: logits differ by {np.abs(found - expected).max():.1e}", end="")

  state = train.initial_state(config, jax.random.key(0))
  state = state.replace(params=variables["params"], batch_stats=variables["batch_stats"])
  state = parallel.replicate(state)
  step = parallel.pmap(train.make_step(config, jax.random.key(1)), donate_argnums=(0,))
  batch = parallel.shard({"image": pixels, "mask": mask, "position": np.arange(TRAIN_BATCH)})

  def run_jax():
    nonlocal state
    state, loss = step(state, batch)
    return float(parallel.unreplicate(loss))

  def torch_run(memory_format):
    twin = TorchUnet()
    twin.load_state_dict(start)
    twin.train().to(memory_format=memory_format)
    optimizer = torch.optim.Adam(twin.parameters(), lr=1e-3)

    def run():
      images = (
        torch.tensor(pixels).permute(0, 3, 1, 2).float().contiguous(memory_format=memory_format)
      )
      loss = F.cross_entropy(twin(images / 127.5 - 1), targets)
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
      return loss.item()

    return run

  runs = {
    "jax": run_jax,
    "torch": torch_run(torch.contiguous_format),
    "channels_last": torch_run(torch.channels_last),
  }
  curves = np.array([[run() for run in runs.values()] for _ in range(2)])
  apart = np.abs(curves - curves[:, :1]).max(axis=1)
  print(f", training losses of steps 1 and 2 by {apart[0]:.1e} and {apart[1]:.1e}")
  seconds = interleave(rounds, runs)
  name = "U-Net training step, batch 16"
  return [
    (label, "ms", 1e3 * seconds["jax"], 1e3 * seconds[twin], seconds[twin] / seconds["jax"])
    for label, twin in ((name, "torch"), (f"{name}, channels_last", "channels_last"))
  ]


def main() -> None:
  """Runs all measurements and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=int, default=5, help="timings of each, at least 1")
  rounds = parser.parse_args().rounds
  if rounds < 1:
    parser.error(f"--rounds={rounds}: expected at least 1")
  if jax.default_backend() != "cpu":
    parser.error(f"JAX runs on {jax.default_backend()}; set JAX_PLATFORMS=cpu to compare CPUs")
  threads = len(os.sched_getaffinity(0))  # As many as XLA takes.
  torch.set_num_threads(threads)
  print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {threads} threads, {rounds} rounds")

  config = dcgan_faces.get_config()
  generator = generators.load(config.generator)
  twin = torch_generator(generator.variables)
  rows = measure_search(rounds, config, generator, twin)
  rows += measure_pairs(rounds, config, generator, twin)
  rows += measure_training(rounds, config)
  print(f"\n| {'':44} | unit    | {'JAX':>8} | {'PyTorch':>8} | {'ratio':>6} |")
  print(f"| {'-' * 44} | ------- | -------: | -------: | -----: |")
  for name, unit, ours, theirs, ratio in rows:
    print(f"| {name:44} | {unit:7} | {ours:8.1f} | {theirs:8.1f} | {ratio:6.2f} |")


if __name__ == "__main__":
  main()
