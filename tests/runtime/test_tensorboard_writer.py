"""clu's interface without TensorFlow: TensorBoard reads what is written."""

import io
import subprocess
import sys

import event_files
import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util import tensor_util
from whole_runs import ROOT

from unseg_jax.runtime.tensorboard_writer import TensorBoardWriter


def values(folder, name):
  """The tensors of a series, as arrays."""
  tensors = event_files.read(folder).Tensors(name)
  return [tensor_util.make_ndarray(event.tensor_proto) for event in tensors]


@pytest.fixture
def writer(tmp_path):
  writer = TensorBoardWriter(tmp_path)
  yield writer
  writer.close()


def test_pictures_keep_their_pixels(writer, tmp_path):
  pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
  writer.write_images(7, {"several": pictures, "one": pictures[0]})
  writer.flush()
  for name, expected in (("several", pictures), ("one", pictures[:1])):
    (tensor,) = values(tmp_path, name)
    assert list(tensor[:2]) == [b"5", b"4"]
    shown = [np.array(Image.open(io.BytesIO(encoded))) for encoded in tensor[2:]]
    np.testing.assert_array_equal(shown, expected)


def test_scalars_of_any_kind_become_points_and_arrays_are_refused(writer, tmp_path):
  kinds = (0.5, 2, True, np.float32(0.25), np.array(3))
  writer.write_scalars(1, {str(i): value for i, value in enumerate(kinds)})
  writer.flush()
  curves = event_files.curves(tmp_path)
  assert curves == {str(i): [(1, float(value))] for i, value in enumerate(kinds)}
  with pytest.raises(ValueError, match="Expected scalar shape"):
    writer.write_scalars(1, {"array": np.zeros(2)})


def test_texts_histograms_and_settings_are_read(writer, tmp_path):
  writer.write_texts(1, {"text": "a *word*"})
  writer.write_histograms(1, {"weights": np.arange(8.0)}, {"weights": 4})
  writer.write_hparams({"learning_rate": 0.1, "name": "unet"})
  writer.flush()
  assert values(tmp_path, "text") == [b"a *word*"]
  (histogram,) = values(tmp_path, "weights")
  assert histogram.shape == (4, 3) and list(histogram[:, 2]) == [2, 2, 2, 2]
  name = hparams_metadata.SESSION_START_INFO_TAG
  metadata = event_files.read(tmp_path).SummaryMetadata(name)
  settings = hparams_metadata.parse_session_start_info_plugin_data(metadata.plugin_data.content)
  assert settings.hparams["learning_rate"].number_value == 0.1


def test_what_tensorboard_cannot_show_is_refused(writer):
  with pytest.raises(NotImplementedError, match="shows no videos"):
    writer.write_videos(1, {"video": np.zeros((1, 2, 4, 4, 3), np.uint8)})
  with pytest.raises(NotImplementedError, match="through TensorFlow"):
    writer.write_audios(1, {"sound": np.zeros((1, 8, 1))}, sample_rate=8)


def test_writers_of_one_moment_do_not_share_a_file(tmp_path):
  for step in range(3):
    writer = TensorBoardWriter(tmp_path / "made")
    writer.write_scalars(step, {"loss": step})
    writer.close()
  assert len(list((tmp_path / "made").iterdir())) == 3
  assert event_files.curves(tmp_path / "made") == {"loss": [(0, 0.0), (1, 1.0), (2, 2.0)]}


def test_it_is_a_metric_writer_of_clu_which_it_does_not_import_whole(tmp_path):
  program = (
    "import sys\n"
    "from unseg_jax.runtime.tensorboard_writer import TensorBoardWriter\n"
    "assert 'tensorflow' not in sys.modules\n"
    "from clu import metric_writers\n"
    f"writer = TensorBoardWriter({str(tmp_path)!r})\n"
    "assert isinstance(writer, metric_writers.MetricWriter)\n"
    "metric_writers.write_values(writer, 3, {'loss': 0.5})\n"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
  assert event_files.curves(tmp_path) == {"loss": [(3, 0.5)]}
