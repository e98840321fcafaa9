"""The segmenters and finished searches in a folder of runs."""

from pathlib import Path

from unseg_jax.artifacts import generator_files, stage_records
from unseg_jax.generators import PRETRAINED

SHIPPED = f"{PRETRAINED}faces"


def segmenters(folder: Path) -> list[str]:
  """Lists the segmenters that `Segmenter.restore` accepts: first the shipped one.

  Args:
    folder: with workdirs and segmenter files (`*.safetensors`, `*.onnx`). Runs without a trained
      segmenter are skipped. The folder may be missing.
  """
  trained = [run for run in _inside(folder) if stage_records.has_complete_stage(run / "train")]
  files = [path for path in _inside(folder) if _is_segmenter(path)]
  return [SHIPPED, *map(str, [*trained, *files])]


def searches(folder: Path) -> list[str]:
  """Lists the workdirs of the runs in a folder whose search is finished."""
  return [str(run) for run in _inside(folder) if stage_records.has_complete_stage(run / "search")]


def label(choice: str) -> str:
  """Returns the label of a segmenter or run: the last part of its path."""
  return "faces (shipped)" if choice == SHIPPED else Path(choice).name


def _inside(folder: Path) -> list[Path]:
  return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_segmenter(path: Path) -> bool:
  if path.suffix == ".safetensors" and path.is_file():
    return generator_files.architecture(path) == "unet"
  return path.suffix == ".onnx" and path.is_file()
