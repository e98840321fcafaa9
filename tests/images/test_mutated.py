"""Mutated files are either read or rejected with a one-line error."""

import io
import itertools
import json
import sys
import threading

import numpy as np
import pytest
from PIL import Image, ImageCms

from unseg_jax import predict
from unseg_jax.images import reading

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMATS = "PNG JPEG TIFF GIF WEBP BMP PPM AVIF JPEG2000 MPO TGA ICO PCX DDS".split()
# Actions that a decoder must never take. Python audits them for every library.
FORBIDDEN = (
  "subprocess.Popen",
  "os.system",
  "os.exec",
  "os.posix_spawn",
  "os.fork",
  "socket.connect",
)
_watched = threading.local()


def watch(event, arguments):
  if event in FORBIDDEN and getattr(_watched, "on", False):
    _watched.events.append((event, arguments))


sys.addaudithook(watch)


def originals():
  """Small files of every format in several modes, with profiles, EXIF and transparency."""
  noise = np.random.default_rng(0).integers(0, 256, (12, 17, 4), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  plain = Image.fromarray(noise[..., :3])
  grey16 = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
  kinds = [(plain, kind, {"exif": exif.tobytes(), "icc_profile": SRGB}) for kind in FORMATS]
  kinds += [
    (plain.convert("P"), "PNG", {"transparency": 3}),
    (grey16, "PNG", {"transparency": 257}),
    (plain.convert("1"), "TIFF", {"compression": "group4"}),
    (plain, "TIFF", {"compression": "tiff_lzw"}),
    (plain.convert("CMYK"), "JPEG", {}),
    (plain.convert("CMYK"), "TIFF", {}),
    (Image.fromarray(noise), "PNG", {}),
    (Image.fromarray(noise), "WEBP", {"lossless": True}),
    (Image.fromarray(noise[..., 0].astype(np.float32) / 255), "TIFF", {}),
    (plain.convert("P"), "GIF", {"save_all": True, "append_images": [plain.convert("P")]}),
  ]
  files = []
  for image, kind, options in kinds:
    file = io.BytesIO()
    image.save(file, kind, **options)
    files.append(file.getvalue())
  return files


def mutated(count, seed):
  """Files with bytes changed, removed, duplicated or truncated."""
  rng = np.random.default_rng(seed)
  for original in itertools.islice(itertools.cycle(originals()), count):
    data = bytearray(original)
    for _ in range(rng.integers(1, 4)):
      # Most headers are near the start, after the magic number of the format.
      at = min(8 + int(len(data) * rng.random() ** rng.choice([1, 4])), len(data) - 1)
      length = int(rng.integers(1, 9))
      match rng.integers(0, 5):
        case 0:
          data[at] = rng.integers(0, 256)
        case 1:
          data[at] ^= 1 << rng.integers(0, 8)
        case 2:
          data[at : at + length] = rng.bytes(length)
        case 3:
          data[at:at] = data[at : at + length]
        case 4:
          del data[at : at + (length if rng.random() < 0.8 else len(data))]
      if not data:
        break
    yield bytes(data)


NUMBERS = [pytest.param(200, id="some"), pytest.param(2000, marks=pytest.mark.slow, id="many")]


@pytest.mark.parametrize("count", NUMBERS)
@pytest.mark.filterwarnings("ignore")
def test_a_mutated_picture_is_read_or_refused_in_one_line(count):
  _watched.on, _watched.events = True, []
  read = 0
  for data in mutated(count, seed=1):
    try:
      picture = reading.read_picture("mutated.png", data, max_pixels=10**6)
    except ValueError as error:
      assert str(error).startswith("mutated.png ") and "\n" not in str(error)
    else:
      assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
      assert 0 < picture.size <= 3 * 10**6
      read += 1
  _watched.on = False
  assert _watched.events == []
  # Otherwise only the first check would have been tested.
  assert 0.1 * count < read < 0.9 * count


@pytest.mark.parametrize("count", [pytest.param(60, id="some"), *NUMBERS[1:]])
@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_mutated_pictures_is_segmented_or_named_and_no_file_is_left_half(
  compile_quickly, tmp_path, capfd, count
):
  pictures, output = tmp_path / "pictures", tmp_path / "segmented"
  pictures.mkdir()
  for number, data in enumerate(mutated(count, seed=2)):
    (pictures / f"{number:04}.png").write_bytes(data)
  status = predict.predict(
    "pretrained:faces", str(pictures), str(output), False, kinds=["mask"], max_pixels=400
  )
  assert status == 1 and "Traceback" not in capfd.readouterr().err
  rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
  assert len(rows) == count and len({row["input"] for row in rows}) == count
  made = {name: row for row in rows if "skipped" not in row for name in row["outputs"]}
  assert {path.name for path in output.iterdir()} == {"predictions.jsonl", *made}
  for name, row in made.items():
    with Image.open(output / name) as mask:
      mask.load()
      assert mask.size == (row["width"], row["height"])
  for row in rows:
    if "skipped" in row:
      assert row["input"] in row["skipped"] and "\n" not in row["skipped"]
