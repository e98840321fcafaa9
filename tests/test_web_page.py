"""The page of `python -m unseg_jax.export --format=web`, in a real browser, from a file server."""

import base64
import re
import time

import file_server
import icc_files
import numpy as np
import pytest
import report_pages
from PIL import Image
from playwright import sync_api
from whole_runs import ROOT, run_module

from unseg_jax import Segmenter, export, predict
from unseg_jax.export import to_web
from unseg_jax.images import reading

EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example" / "astronaut_head.png"


@pytest.fixture(scope="module")
def runtime():
  """ONNX Runtime Web, downloaded as by the command."""
  try:
    return to_web.fetch_runtime()
  except OSError as error:
    pytest.skip(f"ONNX Runtime Web is not cached, and cannot be fetched: {error}")


@pytest.fixture(scope="module")
def address(runtime, tmp_path_factory):
  """The URL of the page on a static file server."""
  folder = tmp_path_factory.mktemp("web") / "page"
  export.export("pretrained:faces", str(folder), "web")
  with file_server.serve(folder) as url:
    yield f"{url}/"


@pytest.fixture(scope="module")
def browser():
  if report_pages.CHROMIUM is None:
    pytest.skip("needs Chromium or Chrome")
  flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
  with sync_api.sync_playwright() as playwright:
    chromium = report_pages.CHROMIUM
    browser = playwright.chromium.launch(executable_path=chromium, args=flags)
    yield browser
    browser.close()


@pytest.fixture
def page(address, browser):
  """The page on a phone; afterwards checks that no script failed and no host was contacted."""
  context = browser.new_context(viewport={"width": 390, "height": 844})
  page = context.new_page()
  requests, problems = [], []
  page.on("request", lambda request: requests.append(request.url.removeprefix("blob:")))
  page.on("console", lambda message: problems.append(message.text))
  page.on("pageerror", lambda error: problems.append(str(error)))
  page.goto(address)
  yield page
  context.close()
  assert len(requests) > 5 and all(url.startswith(address) for url in requests)
  assert problems == []


def choose(page, path):
  """Chooses an image; returns the problem that the page reports."""
  page.get_by_label("Choose a picture").set_input_files(path)
  return wait(page)


def wait(page):
  sync_api.expect(page.get_by_role("status")).to_have_text("", timeout=60_000)
  return page.locator("#problem").inner_text()


def save(page, view):
  """Downloads a view of the image; returns the file's name and its pixels."""
  page.get_by_label(view).check()
  with page.expect_download() as download:
    page.get_by_role("button", name="Download PNG").click()
  pixels = np.asarray(Image.open(download.value.path()))  # [H, W, 4]
  return download.value.suggested_filename, pixels.astype(int)


def set_threshold(page, value):
  page.get_by_label("Threshold").fill(str(value))


def test_the_page_finds_what_predict_finds(compile_quickly, page, tmp_path):
  folder, output = tmp_path / "pictures", tmp_path / "segmented"
  folder.mkdir()
  head = Image.open(EXAMPLE).convert("RGB")
  head.save(folder / "head.png")
  head.resize((67, 131)).save(folder / "odd.png")
  head.resize((5, 9)).save(folder / "tiny.bmp")
  head.resize((641, 397)).save(folder / "wide.webp", lossless=True)
  turned = Image.Exif()
  turned[0x0112] = 6  # The orientation: a quarter turn.
  head.resize((301, 520)).save(folder / "turned.jpg", exif=turned, quality=95)
  for orientation in (3, 5, 8):
    turned[0x0112] = orientation
    head.save(folder / f"turned{orientation}.png", exif=turned)
  Image.fromarray(np.asarray(head.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
  head.putalpha(Image.linear_gradient("L").resize(head.size))
  head.save(folder / "transparent.png")
  assert predict.predict("pretrained:faces", str(folder), str(output), overwrite=False) == 0

  for path in sorted(folder.iterdir()):
    assert choose(page, path) == ""
    name, mask = save(page, "Mask")
    expected = np.asarray(Image.open(output / name))
    assert name == f"{path.stem}_mask.png" and expected.any() and not expected.all()
    assert (mask[..., :3] == expected[..., None]).mean() > 0.999, name
    name, cutout = save(page, "Cut-out")
    expected = np.asarray(Image.open(output / name))
    assert name == f"{path.stem}_cutout.png" and np.ptp(expected[..., 3]) > 100
    assert np.abs(cutout[..., 3] - expected[..., 3]).max() <= 1, name
    # Browsers premultiply colours by their opacity, so that faint ones lose precision.
    solid = expected[..., 3] > 200
    assert np.abs(cutout[solid] - expected[solid]).max() <= 2, name
    name, overlay = save(page, "Overlay")
    expected = np.asarray(Image.open(output / name))
    assert np.abs(overlay[..., :3] - expected).max() <= 2, name


@pytest.mark.parametrize("space", ["p3", "adobe"])
def test_wide_colours_are_seen_and_saved_as_srgb(compile_quickly, page, tmp_path, space):
  stored = icc_files.in_profile(np.asarray(Image.open(EXAMPLE).convert("RGB")), space)
  path = tmp_path / "wide.png"
  Image.fromarray(stored).save(path, icc_profile=icc_files.rgb_profile(space))
  expected = reading.read_picture(path).astype(int)
  assert np.abs(stored - expected).max() > 10
  assert choose(page, path) == ""
  _, cutout = save(page, "Cut-out")
  solid = cutout[..., 3] > 200
  assert solid.mean() > 0.3
  assert np.abs(cutout[..., :3] - expected)[solid].max() <= 2
  # The browser rounds colours in its own way, which affects the output slightly.
  probability = Segmenter.restore("pretrained:faces")(path)
  assert np.abs(cutout[..., 3] - 255 * probability).mean() < 0.5


def test_a_higher_threshold_keeps_less(page, tmp_path):
  probability = Segmenter.restore(save_segmenter(page, tmp_path))(EXAMPLE)
  assert choose(page, EXAMPLE) == ""
  shares = []
  for threshold in (0.1, 0.5, 0.9):
    set_threshold(page, threshold)
    _, mask = save(page, "Mask")
    assert ((mask[..., 0] == 255) == (probability > threshold)).mean() > 0.999
    _, cutout = save(page, "Cut-out")
    assert ((cutout[..., 3] > 127.5) == (probability > threshold)).mean() > 0.999
    shares.append((mask[..., 0] == 255).mean())
  assert shares[0] > shares[1] > shares[2] > 0.1


def save_segmenter(page, folder):
  """Saves the segmenter that the page offers."""
  with page.expect_download() as download:
    page.get_by_role("link", name="pretrained:faces").click()
  assert download.value.suggested_filename == "segmenter.onnx"
  download.value.save_as(folder / "segmenter.onnx")
  return folder / "segmenter.onnx"


def test_what_is_no_picture_or_too_large_is_one_message_and_the_page_lives_on(page, tmp_path):
  (tmp_path / "letter.png").write_text("Dear reader,")
  problem = choose(page, tmp_path / "letter.png")
  assert problem.startswith("letter.png cannot be opened: it is no picture")
  (tmp_path / "drawing.svg").write_text(
    '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
  )
  assert choose(page, tmp_path / "drawing.svg").startswith("drawing.svg cannot be opened")
  Image.new("1", (10_000, 6_000)).save(tmp_path / "large.png")
  problem = choose(page, tmp_path / "large.png")
  assert problem.startswith("large.png has 10,000 × 6,000 pixels; this page opens up to 50 million")
  Image.new("1", (30_000, 30_000)).save(tmp_path / "huge.png")
  assert "more pixels than this browser can read" in choose(page, tmp_path / "huge.png")
  sync_api.expect(page.locator("#result")).to_be_hidden()
  assert choose(page, EXAMPLE) == ""
  sync_api.expect(page.get_by_label("The overlay of astronaut_head.png")).to_be_visible()


GIVE = """([bytes, name, kind]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name));
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { clipboardData: data })
    : new DragEvent(kind, { dataTransfer: data, cancelable: true });
  document.dispatchEvent(event);
}"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_may_be_dropped_or_pasted(page, kind):
  contents = base64.b64encode(EXAMPLE.read_bytes()).decode()
  page.evaluate(GIVE, [contents, "given.png", kind])
  assert wait(page) == ""
  sync_api.expect(page.get_by_label("The overlay of given.png")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_on_a_phone_nothing_scrolls_sideways_and_all_has_a_name(page, scheme):
  page.emulate_media(color_scheme=scheme)
  assert width(page) == 390
  assert choose(page, EXAMPLE) == ""
  assert width(page) == 390
  canvas = page.locator("#canvas").bounding_box()
  assert canvas["width"] > 300 and canvas["x"] + canvas["width"] < 390
  for name in ("Overlay", "Cut-out", "Mask"):
    sync_api.expect(page.get_by_role("radio", name=name)).to_be_visible()
  sync_api.expect(page.get_by_role("slider", name="Threshold")).to_be_visible()
  background = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
  assert (max(map(int, re.findall(r"\d+", background))) < 60) == (scheme == "dark")


def width(page):
  return page.evaluate("() => document.documentElement.scrollWidth")


def test_the_command_writes_all_that_the_page_needs_and_replaces_what_it_wrote(runtime, tmp_path):
  flags = ("--output=page", "--format=web", f"--runtime={runtime}")
  for _ in range(2):
    done = run_module("unseg_jax.export", tmp_path, *flags)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"wrote page: 1\d\.\d MB\n", done.stdout) and done.stderr == ""
  page = (tmp_path / "page" / "index.html").read_text()
  assert f"ONNX Runtime Web {to_web.RUNTIME_VERSION}" in page and "Apache-2.0" in page
  assert "Microsoft" in (tmp_path / "page" / "onnxruntime-web.LICENSE.txt").read_text()
  assert Segmenter.restore(tmp_path / "page" / "segmenter.onnx").image_size == 64
  assert len(list((tmp_path / "page").iterdir())) == 10


def test_without_a_network_the_error_explains_how_to_continue(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(time, "sleep", lambda _: None)  # Between two attempts to download.
  monkeypatch.setattr(to_web, "RUNTIME_URL", "http://127.0.0.1:1/onnxruntime-web.tgz")
  with pytest.raises(
    OSError, match=r"cannot download .*`npm pack onnxruntime-web@.*--runtime=FILE"
  ):
    export.export("pretrained:faces", str(tmp_path / "page"), "web")
  assert not (tmp_path / "page").exists()


def test_another_package_is_refused(tmp_path):
  (tmp_path / "other.tgz").write_bytes(b"other")
  with pytest.raises(ValueError, match=r"other\.tgz is not onnxruntime-web .* SHA-256 is d9298a10"):
    export.export("pretrained:faces", str(tmp_path / "page"), "web", str(tmp_path / "other.tgz"))
  with pytest.raises(ValueError, match=r"--runtime=other\.tgz is for --format=web only"):
    export.export("pretrained:faces", str(tmp_path / "faces.onnx"), "onnx", "other.tgz")
  assert [path.name for path in tmp_path.iterdir()] == ["other.tgz"]


def test_a_folder_of_other_things_is_left_alone(tmp_path):
  (tmp_path / "index.html").write_text("my own")
  (tmp_path / "thesis.tex").write_text("my own")
  with pytest.raises(ValueError, match=r"contains other files, such as thesis\.tex; expected a"):
    export.export("pretrained:faces", str(tmp_path), "web")
  with pytest.raises(ValueError, match=r"thesis\.tex is a file; expected a folder"):
    export.export("pretrained:faces", str(tmp_path / "thesis.tex"), "web")
  assert (tmp_path / "index.html").read_text() == "my own"
