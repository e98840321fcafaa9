"""Segmenters on disk: in a run's workdir, in a single file, or shipped with the package."""

from importlib import resources
from pathlib import Path

from unseg_jax.artifacts import generator_files, renamed_settings, stage_records
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import PRETRAINED
from unseg_jax.inference import onnx_files
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.storage import places, whole_files


def restore(folder: str | Path, adapted: bool = True) -> Segmenter:
  """Restores a segmenter; see `Segmenter.restore`."""
  if str(folder).startswith(PRETRAINED):
    folder = _pretrained(str(folder).removeprefix(PRETRAINED))
  folder = places.local(folder)
  if folder.is_file() and folder.suffix.lower() == ".onnx":
    return Segmenter({}, *onnx_files.read(folder))
  if folder.is_file():
    file = generator_files.read_generator(folder)
    if file.architecture != "unet":
      raise InvalidValue(f"{folder} holds a {file.architecture} generator, expected a segmenter")
    return Segmenter.create(file.variables, file.config["widths"], file.config["image_size"])
  if not (folder / "config.json").exists():
    raise FileNotFoundError(
      f"{folder} is not the workdir of a run: it has no config.json. Expected the --workdir of "
      "`python -m unseg_jax.main` (by default runs/NAME), a segmenter file (*.safetensors or "
      f"*.onnx), or {PRETRAINED}NAME."
    )
  from unseg_jax.artifacts import checkpoints  # By orbax, which a segmenter's file does without.

  config = whole_files.read_json(folder / "config.json")
  trained = folder / "train"
  if adapted and stage_records.has_complete_stage(folder / "adapt"):
    trained = folder / "adapt" / f"round-{config['adapt']['rounds']}"
  variables = checkpoints.restore_best(trained / "checkpoints")
  settings = renamed_settings.in_section("train", config["train"])
  return Segmenter.create(variables, settings["features"], settings["image_size"])


def identity(folder: str | Path) -> str:
  """Returns a text that changes when the files of a segmenter change.

  It lists the files that `restore` reads, with their sizes and modification times.
  """
  if str(folder).startswith(PRETRAINED):
    return str(folder)
  folder = places.local(folder)
  if folder.is_file():
    return whole_files.identity([folder])
  stages = [folder / stage for stage in ("train", "adapt")]
  read = [folder / "config.json", *(stage / stage_records.RECORD for stage in stages)]
  for stage in stages:
    read += sorted(path for path in stage.glob("**/checkpoints/**/*") if path.is_file())
  return whole_files.identity(read)


def save(segmenter: Segmenter, path: str | Path) -> None:
  """Writes a segmenter to one file; see `Segmenter.save`."""
  settings = {"widths": segmenter.features, "image_size": segmenter.image_size}
  generator_files.save_generator(
    path, generator_files.GeneratorFile("unet", settings, segmenter.variables, "")
  )


def _pretrained(name: str) -> Path:
  """Returns the file of a segmenter that ships with the package."""
  files = sorted((Path(str(resources.files("unseg_jax"))) / "pretrained" / "segmenters").iterdir())
  by_name = {path.stem: path for path in files}
  if name not in by_name:
    raise FileNotFoundError(
      f"no segmenter {PRETRAINED}{name} ships with the package; expected one of "
      + ", ".join(PRETRAINED + known for known in by_name)
    )
  return by_name[name]
