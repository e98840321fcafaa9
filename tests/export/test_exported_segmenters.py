"""Exported segmenters match the original, and other files are refused."""

import sys

import golden_unet
import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from whole_runs import finish, start_python

from checkpoints_convert import unet
from unseg_jax import Segmenter, export
from unseg_jax.segmentation.unet import Unet
from unseg_jax.storage import whole_files

# The smallest size, and odd sizes, for which levels are padded in either direction.
SIZES = ((16, 16), (17, 31), (33, 48), (64, 65), (50, 127))


@pytest.fixture(scope="module")
def segmenter():
  _, config, variables = unet.convert(golden_unet.make_state_dict(16), {})
  # Confident predictions: with logits near 0, a wrong network would match, too.
  variables["params"]["out"] = jax.tree.map(lambda x: 50 * x, variables["params"]["out"])
  return Segmenter.create(variables, config["widths"], 48)


@pytest.fixture(scope="module")
def folder(segmenter, tmp_path_factory):
  """Yields a folder with that segmenter and its exported files."""
  folder = tmp_path_factory.mktemp("exported")
  segmenter.save(folder / "unet.safetensors")
  for name in export.FILE_FORMATS:
    export.export(str(folder / "unet.safetensors"), str(folder / f"unet.{name}"), name)
  return folder


def pictures(height, width):
  return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def expected(segmenter, compile_quickly):
  """Returns JAX's probabilities of `pictures`, by size."""

  @jax.jit
  def probability(images):
    logits = Unet(segmenter.features).apply(segmenter.variables, images / 127.5 - 1)
    return jax.nn.softmax(logits)[..., 1]

  return {size: np.asarray(probability(pictures(*size).astype(np.float32))) for size in SIZES}


def test_onnx_and_jax_find_the_same_at_any_size(folder, expected):
  session = onnxruntime.InferenceSession(folder / "unet.onnx", providers=["CPUExecutionProvider"])
  for size, probability in expected.items():
    assert np.ptp(probability) > 0.5  # The image has foreground.
    (answer,) = session.run(["probability"], {"images": pictures(*size)})
    assert answer.dtype == np.float32
    np.testing.assert_allclose(answer, probability, rtol=0, atol=1e-4, err_msg=str(size))


LOAD = """
import json, pathlib, sys
import jax, numpy as np
call = jax.export.deserialize(bytearray(pathlib.Path(sys.argv[1]).read_bytes())).call
given = np.load(sys.argv[2])
np.savez(sys.argv[3], **{size: call(images) for size, images in given.items()})
assert not any(name.startswith("unseg_jax") for name in sys.modules)
"""


def test_stablehlo_finds_the_same_in_a_process_without_the_package(folder, expected, tmp_path):
  np.savez(tmp_path / "given.npz", **{str(size): pictures(*size) for size in SIZES})
  names = (folder / "unet.stablehlo", tmp_path / "given.npz", tmp_path / "answers.npz")
  done = finish(start_python(LOAD, *names))
  assert done.returncode == 0, done.stderr
  answers = np.load(tmp_path / "answers.npz")
  for size, probability in expected.items():
    np.testing.assert_allclose(
      answers[str(size)], probability, rtol=0, atol=1e-4, err_msg=str(size)
    )


def test_stablehlo_is_for_cpus_cuda_and_tpus(folder):
  exported = jax.export.deserialize(bytearray((folder / "unet.stablehlo").read_bytes()))
  assert exported.platforms == ("cpu", "cuda", "tpu")


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tensorflow_lite_finds_the_same_of_one_picture_of_the_training_size(segmenter, folder):
  import tensorflow as tf  # Imported here, since it takes seconds.

  interpreter = tf.lite.Interpreter(str(folder / "unet.tflite"))
  interpreter.allocate_tensors()
  (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()
  picture = pictures(48, 48)[0]
  interpreter.set_tensor(given["index"], picture[None])
  interpreter.invoke()
  (mask,) = interpreter.get_tensor(answer["index"])
  np.testing.assert_allclose(mask, segmenter(picture), rtol=0, atol=1e-4)


def test_a_restored_onnx_file_segments_pictures_as_the_original(segmenter, folder):
  restored = Segmenter.restore(folder / "unet.onnx")
  assert restored.image_size == 48
  for average in (False, True):
    for height, width in ((48, 48), (90, 131)):
      picture = pictures(height, width)[0]
      np.testing.assert_allclose(
        restored(picture, average), segmenter(picture, average), rtol=0, atol=1e-4
      )


def test_the_metadata_describe_the_model_and_how_to_resize(folder):
  model = onnx.load(folder / "unet.onnx")
  metadata = {entry.key: entry.value for entry in model.metadata_props}
  assert metadata["image_size"] == "48"
  assert "shorter side has 48 pixels" in metadata["resizing"]
  assert metadata["source"] == "unet.safetensors"
  beside = whole_files.read_json(folder / "unet.stablehlo.json")
  assert "shorter side has 48 pixels" in beside["resizing"] and "logits" not in beside["resizing"]
  beside = whole_files.read_json(folder / "unet.tflite.json")
  assert "images [1, 48, 48, 3]" in beside["description"]
  assert "square" in beside["resizing"]
  ours = export.describe("pretrained:faces", 64, "onnx")
  assert ours["source"] == "pretrained:faces" and ours["license"].startswith("Apache-2.0")


def test_the_same_segmenter_gives_the_same_bytes(folder, tmp_path):
  again = export.export(str(folder / "unet.safetensors"), str(tmp_path / "again.onnx"))
  assert again.read_bytes() == (folder / "unet.onnx").read_bytes()


def test_no_weights_are_taken_out_of_an_onnx_file(folder, tmp_path):
  with pytest.raises(ValueError, match="weights of this segmenter are in an ONNX file"):
    export.export(str(folder / "unet.onnx"), str(tmp_path / "again.onnx"))
  with pytest.raises(ValueError, match="weights of this segmenter are in an ONNX file"):
    Segmenter.restore(folder / "unet.onnx").save(tmp_path / "again.safetensors")
  assert list(tmp_path.iterdir()) == []


def keep_outside(model):
  onnx.external_data_helper.set_external_data(model.graph.initializer[2], "/etc/hostname")


def keep_outside_in_an_attribute(model):
  tensor = onnx.numpy_helper.from_array(np.zeros(3, np.float32), "hidden")
  onnx.external_data_helper.set_external_data(tensor, "secret.bin")
  model.graph.node.append(onnx.helper.make_node("Constant", [], ["hidden"], value=tensor))


def use_another_operation(model):
  model.graph.node.append(onnx.helper.make_node("Loop", [], ["endless"]))


def use_another_domain(model):
  model.graph.node[0].domain = "com.microsoft"


def define_a_function(model):
  node = onnx.helper.make_node("Relu", ["x"], ["y"])
  opsets = [onnx.helper.make_opsetid("", 17)]
  model.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [node], opsets))


def forget_the_metadata(model):
  del model.metadata_props[:]


def ask_for_huge_pictures(model):
  (entry,) = [entry for entry in model.metadata_props if entry.key == "image_size"]
  entry.value = "1000000"


def rename_an_output(model):
  model.graph.output[0].name = "other"


def lose_an_operation(model):
  del model.graph.node[5]


def lose_a_weight(model):
  del model.graph.initializer[2]


@pytest.mark.parametrize(
  "change, problem",
  [
    (keep_outside, "keeps weights in another file"),
    (keep_outside_in_an_attribute, "keeps weights in another file"),
    (use_another_operation, "contains the operation Loop"),
    (use_another_domain, "contains the operation com.microsoft:Transpose"),
    (define_a_function, "contains the operation F"),
    (forget_the_metadata, "is an ONNX file with unseg_jax_segmenter=None"),
    (ask_for_huge_pictures, "has image_size='1000000'"),
    (rename_an_output, r"maps \['images'\] to \['logits', 'other'\]"),
    (lose_an_operation, "cannot be run by onnxruntime"),
    (lose_a_weight, "cannot be run by onnxruntime"),
  ],
)
def test_a_foreign_onnx_file_is_one_clear_error(folder, tmp_path, change, problem, capfd):
  model = onnx.load(folder / "unet.onnx")
  change(model)
  path = tmp_path / "foreign.onnx"
  path.write_bytes(model.SerializeToString())
  with pytest.raises(ValueError, match=rf"foreign\.onnx {problem}[\s\S]*: expected a file that"):
    Segmenter.restore(path)
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0, 10, 100_000])
def test_a_damaged_onnx_file_is_one_clear_error(folder, tmp_path, size):
  path = tmp_path / "damaged.onnx"
  path.write_bytes((folder / "unet.onnx").read_bytes()[:size])
  with pytest.raises(ValueError, match=r"damaged\.onnx .*: expected a file that"):
    Segmenter.restore(path)


def test_a_picture_that_an_onnx_file_fails_on_is_one_clear_error(folder, tmp_path):
  model = onnx.load(folder / "unet.onnx")
  for node in model.graph.node:
    if node.op_type == "Pad":  # After upsampling, an odd skip connection has another size.
      node.op_type = "Relu"
      del node.input[1:]
  (tmp_path / "no_padding.onnx").write_bytes(model.SerializeToString())
  restored = Segmenter.restore(tmp_path / "no_padding.onnx")
  assert restored(pictures(48, 48)[0]).shape == (48, 48)
  with pytest.raises(ValueError, match=r"no_padding\.onnx fails on an image \[48, 49, 3\]"):
    restored(pictures(48, 49)[0])


@pytest.mark.parametrize(
  ("file_format", "name", "extra"),
  [("stablehlo", "flatbuffers", "export"), ("tflite", "tensorflow", "tensorflow")],
)
def test_without_what_writes_a_format_the_error_names_the_extra(
  folder, tmp_path, monkeypatch, file_format, name, extra
):
  monkeypatch.setitem(sys.modules, name, None)
  monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
  message = rf"the format {file_format} needs .*pip install 'unseg-jax\[{extra}\]'"
  with pytest.raises(ImportError, match=message):
    export.export(
      str(folder / "unet.safetensors"), str(tmp_path / f"unet.{file_format}"), file_format
    )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_without_the_extra_the_error_names_it(folder, monkeypatch, name):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ImportError, match=rf"need {name}, .*install the extra `export`"):
    Segmenter.restore(folder / "unet.onnx")
