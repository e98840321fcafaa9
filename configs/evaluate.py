r"""Evaluates any segmenter on the paper's five data sets, and on your own.

python -m unseg_jax.main --config=configs/evaluate.py --config.segmenter=runs/dcgan_faces \
  --config.data_root=data

prints one table and saves it as runs/evaluate/metrics.json, metrics.md and metrics.txt. Choose with
--config.evaluate.benchmarks="('ecssd','duts')"; see unseg_jax/default_config.py for the rest.
"""

from unseg_jax import default_config


def get_config():
  """All benchmarks with the metrics of the paper; no training."""
  config = default_config.get_config()
  config.name = "evaluate"
  config.evaluate.benchmarks = ("cub", "flowers", "dut_omron", "duts", "ecssd")
  return config
