"""The contents of a folder of TensorBoard events."""

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util


def read(folder):
  """Reads all events of a folder with TensorBoard."""
  every = {"scalars": 0, "images": 0}
  events = plugin_event_accumulator.EventAccumulator(str(folder), tensor_size_guidance=every)
  events.Reload()
  return events


def curves(folder):
  """Returns the points of each curve, as (step, value), by name."""
  events = read(folder)
  return {
    name: [
      (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
      for event in events.Tensors(name)
    ]
    for name in events.Tags()["tensors"]
    if events.SummaryMetadata(name).plugin_data.plugin_name == "scalars"
  }


def pictures(folder):
  """Returns the steps of each series of images, by name."""
  events = read(folder)
  return {
    name: [event.step for event in events.Tensors(name)]
    for name in events.Tags()["tensors"]
    if events.SummaryMetadata(name).plugin_data.plugin_name == "images"
  }
