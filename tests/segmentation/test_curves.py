"""The training history stays consistent in runs that older versions started."""

from unseg_jax.segmentation.curves import Curves
from unseg_jax.storage import whole_files


def test_a_history_with_fewer_scores_keeps_its_columns(tmp_path):
  began = {"Validation": {"step": [2, 4], "iou": [0.1, 0.2]}}
  whole_files.write_json(tmp_path / "history.json", began)
  curves = Curves.read(tmp_path, 2)  # The checkpoint of step 4 was never saved.
  for step in (4, 6):
    curves.append("Validation", {"step": step, "iou": 0.5, "miou": 0.25})
  curves.append("Training", {"step": 6, "loss": 0.125})
  curves.write(tmp_path, 6)
  assert whole_files.read_json(tmp_path / "history.json") == {
    "Validation": {"step": [2, 4, 6], "iou": [0.1, 0.5, 0.5]},
    "Training": {"step": [6], "loss": [0.125]},
  }
