"""The full method at its smallest: seconds on one core, with a random network as generator."""

from unseg_jax import default_config


def get_config():
  """Returns a config with a few small steps of everything; the test sets `config.generator`."""
  config = default_config.get_config()
  config.name = "tiny"

  config.search.steps = 6
  config.search.batch_size = 8
  config.search.save_every = 2

  config.generate.num_images.train = 40
  config.generate.num_images.validation = 8
  config.generate.num_images.test = 8
  # A random network's images pass no filter for photographs.
  config.generate.area = (0.0, 1.0)
  config.generate.histogram_maxima = 0
  config.generate.chunk = 8
  config.generate.shard_candidates = 16

  config.train.features = (4, 8)
  config.train.image_size = 64
  config.train.steps = 6
  config.train.batch_size = 8
  config.train.log_every = 1
  config.train.checkpoint_every = 2
  config.train.copy_paste.share = 0.5
  config.train.copy_paste.kinds = ("plain", "generated", "blurred")
  config.train.iou_weight = 0.5

  config.report.samples = 4
  config.report.pictures = ("example:astronaut_head.png",)
  return config
