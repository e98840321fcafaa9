"""Faces, with the DCGAN that ships with the package. A CPU suffices.

python -m unseg_jax.main --config=configs/dcgan_faces.py
"""

from unseg_jax import default_config


def get_config():
  """Returns settings that suit a small 64 x 64 generator and photographs of heads."""
  config = default_config.get_config()
  default_config.choose_types(config)
  config.name = "dcgan_faces"
  config.generator = "pretrained:dcgan_faces"

  config.generate.num_images.train = 4_096
  config.generate.num_images.validation = 64
  config.generate.num_images.test = 512
  config.generate.area = (0.05, 0.9)  # Heads fill more of an image than birds do.
  config.generate.roundness = 0.03  # Rejects the most ragged masks, about a quarter.
  config.generate.shard_candidates = 1_024

  config.train.features = (16, 32, 64, 128, 128)
  config.train.image_size = 64
  config.train.steps = 1_400
  config.train.batch_size = 16
  config.train.learning_rate = 2e-3
  config.train.schedule = "cosine"
  config.train.checkpoint_every = 350
  # The segmenter is meant for photographs, whose backgrounds differ from generated ones.
  config.train.augment = True
  config.train.copy_paste.share = 0.85
  config.train.copy_paste.kinds = ("plain", "gradient", *3 * ("blurred",))
  config.train.iou_weight = 1.0

  config.report.pictures = ("example:astronaut_head.png",)
  return config
