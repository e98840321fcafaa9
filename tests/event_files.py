"""What TensorBoard shows of a folder of events."""

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.util import tensor_util


def read(folder):
  """Everything that the events of a folder hold, as TensorBoard reads them."""
  every = {"scalars": 0, "images": 0}
  events = plugin_event_accumulator.EventAccumulator(str(folder), tensor_size_guidance=every)
  events.Reload()
  return events


def curves(folder):
  """The points of each curve, as (step, value), by the curves' names."""
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
  """The steps of each series of pictures, by the series' names."""
  events = read(folder)
  return {
    name: [event.step for event in events.Tensors(name)]
    for name in events.Tags()["tensors"]
    if events.SummaryMetadata(name).plugin_data.plugin_name == "images"
  }
