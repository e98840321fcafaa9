"""An evaluation by several processes and devices gives the scores of one, to the last bit."""

import numpy as np
import pytest
from PIL import Image
from unseg_jax.configs import evaluate as evaluate_config
from whole_runs import ROOT, finish, of_processes, start_python

from unseg_jax import pipeline
from unseg_jax.storage import whole_files

COUNT = 7  # Not a multiple of the processes.
EVALUATE = """
import sys
from unseg_jax import pipeline
from unseg_jax.configs import evaluate
from unseg_jax.runtime import parallel

parallel.start()
config = evaluate.get_config()
config.segmenter, config.evaluate.benchmarks = "pretrained:faces", ()
config.evaluate.folders = (("heads", sys.argv[1], sys.argv[2], False),)
config.evaluate.batch_size = 2
pipeline.run(config, sys.argv[3], list(pipeline.STAGES))
"""


@pytest.fixture
def folders(tmp_path):
  """Heads of one size with their masks, each rotated differently."""
  example = ROOT / "unseg_jax" / "pretrained" / "example"
  for name, kind in (("astronaut_head", "images"), ("astronaut_head_mask", "masks")):
    (tmp_path / kind).mkdir()
    picture = Image.open(example / f"{name}.png")
    for number in range(COUNT):
      picture.rotate(5 * number).resize((96, 96)).save(tmp_path / kind / f"{number}.png")
  return tmp_path / "images", tmp_path / "masks"


def test_two_processes_of_two_devices_find_the_scores_of_one(folders, tmp_path):
  environments = of_processes(2, devices=2)
  started = [start_python(EVALUATE, *folders, tmp_path / "two", **each) for each in environments]
  for process in map(finish, started):
    assert process.returncode == 0, process.stderr

  config = evaluate_config.get_config()
  config.segmenter, config.evaluate.benchmarks = "pretrained:faces", ()
  config.evaluate.folders = (("heads", *map(str, folders), False),)
  config.evaluate.batch_size = 2
  pipeline.run(config, tmp_path / "one", pipeline.STAGES)
  for name in ("metrics.json", "baselines.json"):
    scores, expected = (whole_files.read_json(tmp_path / run / name) for run in ("two", "one"))
    assert scores == expected
  assert np.isfinite(list(expected["heads"]["all foreground"].values())).all()
