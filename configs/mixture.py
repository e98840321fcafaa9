r"""One segmenter from the sets of two runs, here of faces and of ImageNet's classes.

python -m unseg_jax.main --config=configs/dcgan_faces.py
python -m checkpoints_convert.convert --variant=biggan-deep-128 \
  --output=checkpoints/biggan-deep-128.safetensors
python -m unseg_jax.main --config=configs/biggan.py:128 --stages=search,generate
python -m unseg_jax.main --config=configs/mixture.py

Any finished runs will do: --config.train.data_sets="(('runs/a',1.0),('runs/b',3.0))", each with its
weight. Their images may differ in size.
"""

from unseg_jax import default_config

# Each makes one of the runs.
COMMANDS = (
  "python -m unseg_jax.main --config=configs/dcgan_faces.py --workdir=runs/dcgan_faces",
  "python -m checkpoints_convert.convert --variant=biggan-deep-128 "
  "--output=checkpoints/biggan-deep-128.safetensors && python -m unseg_jax.main "
  "--config=configs/biggan.py:128 --stages=search,generate --workdir=runs/biggan-deep-128",
)


def get_config():
  """The paper's training on equal parts of both; there is no search, and nothing is generated."""
  config = default_config.get_config()
  config.name = "mixture"
  config.convert_command = "\n".join(COMMANDS)
  config.train.data_sets = (("runs/dcgan_faces", 1.0), ("runs/biggan-deep-128", 1.0))
  return config
