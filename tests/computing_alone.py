"""Runs computations on tiny cases. They need none of the libraries that read or write files.

python tests/computing_alone.py [--hide] [NAME]

`.ci/run` runs it in environments without those libraries. With `--hide`, they cannot be
imported even if they are installed.
"""

import argparse
import sys
from pathlib import Path

FILE_LIBRARIES = (
  "array_record clu fsspec grain orbax pooch requests safetensors tenacity tensorboard "
  "tensorflow tensorflow_datasets tqdm"
).split()


class Hide:
  """An import hook that hides the libraries for files."""

  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] in FILE_LIBRARIES:
      raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def case():
  """Returns a tiny experiment, its generator, and a direction."""
  import numpy as np
  import tiny_config
  from tiny_generator import tiny_generator

  from unseg_jax import default_config

  config, generator = default_config.with_types(tiny_config.get_config()), tiny_generator()
  config.train.image_size = generator.image_size
  return config, generator, np.ones((1, *generator.latent_shape), np.float32)


def search():
  """Runs a search step."""
  import jax
  import numpy as np

  from unseg_jax.direction import directions, step
  from unseg_jax.runtime import parallel

  config, generator, _ = case()
  start = directions.initial(jax.random.key(0), 1, generator.latent_shape)[None]
  state = parallel.replicate(step.initial_state(config.search, start))
  drawn = step.draw(generator, config.search, jax.random.key(1), np.arange(8))
  move = parallel.pmap(step.make_step(generator, config.search))
  state, parts = move(state, parallel.replicate(generator.variables), *parallel.shard(drawn))
  assert np.isfinite(parts["outside_circle"]).all() and int(state.step[0]) == 1


def candidates():
  """Makes candidates with masks and filters."""
  import jax
  import numpy as np

  from unseg_jax.synthesis import candidates

  config, generator, direction = case()
  make = jax.jit(candidates.make_candidates(generator, config.generate))
  made = make(generator.variables, direction, jax.random.key(0), np.arange(4))
  assert made["image"].shape == (4, 8, 8, 3) and made["mask"].dtype == bool
  assert "area" in made["verdicts"]


def train():
  """Runs a training step with copy-paste."""
  import jax
  import numpy as np

  from unseg_jax.runtime import parallel
  from unseg_jax.segmentation import step

  config, generator, _ = case()
  count, size = config.train.batch_size, generator.image_size
  pairs = {
    "image": np.zeros((count, size, size, 3), np.uint8),
    "mask": np.zeros((count, size, size, 1), np.uint8),
    "position": np.arange(count),
  }
  move = parallel.pmap(step.make_step(config.train, jax.random.key(0)))
  state = parallel.replicate(step.initial_state(config.train, jax.random.key(1)))
  state, loss = move(state, parallel.shard(pairs))
  assert np.isfinite(loss).all() and int(state.step[0]) == 1


def train_on_the_fly():
  """Runs a training step on pairs that it makes."""
  import jax
  import numpy as np

  from unseg_jax.runtime import parallel
  from unseg_jax.segmentation import step
  from unseg_jax.synthesis import on_the_fly

  config, generator, direction = case()
  move = parallel.pmap(step.make_step(config.train, jax.random.key(0)))
  state = step.initial_state(config.train, jax.random.key(2))
  batch = next(on_the_fly.batches(generator, direction, config, jax.random.key(1), state))
  state, loss = move(parallel.replicate(state), batch)
  assert np.isfinite(loss).all() and int(batch["pairs"][0]) == config.train.batch_size


def segment():
  """Runs a segmenter on one image, and on images in batches."""
  import jax
  import numpy as np

  from unseg_jax.inference import batched
  from unseg_jax.inference.segmenter import Segmenter
  from unseg_jax.segmentation import step

  config, _, _ = case()
  state = step.initial_state(config.train, jax.random.key(1))
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  segmenter = Segmenter.create(variables, config.train.features, 64)
  picture = np.zeros((40, 50, 3), np.uint8)
  assert segmenter(picture).shape == (40, 50)
  answers = dict(batched.logits(segmenter, [(1, segmenter.views(picture, False))], 2))
  assert answers[1][0].shape == (64, 80)


PROGRAMS = {function.__name__: function for function in (search, candidates, train)}
PROGRAMS |= {function.__name__: function for function in (train_on_the_fly, segment)}


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("names", nargs="*", choices=[[], *PROGRAMS])
  parser.add_argument("--hide", action="store_true")
  arguments = parser.parse_args()
  if arguments.hide:
    sys.meta_path.insert(0, Hide())
  here = Path(__file__).resolve().parent
  sys.path[:0] = [str(here.parent), str(here)]
  for name in arguments.names or PROGRAMS:
    PROGRAMS[name]()
    print(f"{name}: computes", flush=True)
  if arguments.hide and (imported := sys.modules.keys() & set(FILE_LIBRARIES)):
    raise SystemExit(f"imported all the same: {', '.join(imported)}")


if __name__ == "__main__":
  main()
