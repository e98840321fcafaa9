r"""Evaluates a segmenter on the paper's five benchmarks, or on your own data sets.

python -m unseg_jax.main --config=configs/evaluate.py --config.segmenter=runs/dcgan_faces \
  --config.data_root=data

This prints a table of metrics and saves it as metrics.json, metrics.md and metrics.txt in
runs/evaluate. Select benchmarks with --config.evaluate.benchmarks="('ecssd','duts')". For your own
data sets, set config.evaluate.folders or config.evaluate.tfds.
"""

from unseg_jax import default_config


def get_config():
  """Returns settings that evaluate on all benchmarks, with the metrics of the paper."""
  config = default_config.get_config()
  config.name = "evaluate"
  config.evaluate.benchmarks = ("cub", "flowers", "dut_omron", "duts", "ecssd")
  return config
