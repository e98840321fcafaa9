r"""Trains one segmenter on the data sets of two runs: faces and ImageNet.

python -m unseg_jax.main --config=configs/dcgan_faces.py
python -m checkpoints_convert.convert --variant=biggan-deep-128 \
  --output=checkpoints/biggan-deep-128.safetensors
python -m unseg_jax.main --config=configs/biggan.py:128 --stages=search,generate
python -m unseg_jax.main --config=configs/mixture.py

For other finished runs, set --config.train.data_sets="(('runs/a',1.0),('runs/b',3.0))", with a
weight for each run. Their images may differ in size.
"""

from unseg_jax import default_config

# Each command produces one of the runs.
COMMANDS = (
  "python -m unseg_jax.main --config=configs/dcgan_faces.py --workdir=runs/dcgan_faces",
  "python -m checkpoints_convert.convert --variant=biggan-deep-128 "
  "--output=checkpoints/biggan-deep-128.safetensors && python -m unseg_jax.main "
  "--config=configs/biggan.py:128 --stages=search,generate --workdir=runs/biggan-deep-128",
)


def get_config():
  """Returns the paper's settings for training on equal parts of both data sets."""
  config = default_config.get_config()
  config.name = "mixture"
  config.convert_command = "\n".join(COMMANDS)
  config.train.data_sets = (("runs/dcgan_faces", 1.0), ("runs/biggan-deep-128", 1.0))
  return config
