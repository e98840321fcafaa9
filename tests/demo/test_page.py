"""The page in Chromium, used as a visitor would."""

import base64
import contextlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image
from report_pages import CHROMIUM
from whole_runs import wait_until

from unseg_jax.images import reading
from unseg_jax.inference.segmenter import Segmenter

pytest.importorskip("gradio", reason="the page needs Gradio")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")

WIDTHS = [pytest.param(1280, marks=pytest.mark.slow), 390]
FLAGS = (
  "--no-sandbox --disable-gpu --disable-background-networking "
  "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
WAIT = 60_000  # Milliseconds: on a busy machine, the first image waits for the compiler.


@pytest.fixture(scope="module")
def browser():
  with playwright.sync_playwright() as driver:
    opened = driver.chromium.launch(
      executable_path=shutil.which(CHROMIUM),
      args=FLAGS.split(),
    )
    yield opened
    opened.close()


@pytest.fixture
def visit(browser, served):
  """A function that opens the page at a width; any error on the page fails the test."""
  with contextlib.ExitStack() as stack:
    wrong = []

    def open_page(width=1280):
      context = browser.new_context(
        viewport={"width": width, "height": 900},
        permissions=["camera", "clipboard-read", "clipboard-write"],
      )
      stack.callback(context.close)
      page = context.new_page()
      page.set_default_timeout(WAIT)
      page.on("request", lambda request: wrong.extend(elsewhere(request.url, served.local_url)))
      page.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
      page.on("console", lambda said: wrong.extend([said.text] if said.type == "error" else []))
      page.goto(served.local_url)
      page.locator("#example").wait_for()
      return page

    yield open_page
    assert not wrong


def elsewhere(url, own):
  """Returns a list with the address if it belongs to another host."""
  return [] if url.startswith((own, "data:", "blob:", "about:")) else [f"asked for {url}"]


def send(page, path, to="#picture"):
  page.locator(f"{to} input[type=file]").set_input_files(str(path))


def picture(page, description):
  """Returns the image with this description as an array."""
  source = page.get_by_alt_text(description, exact=True)
  source.first.wait_for()
  data = base64.b64decode(source.first.get_attribute("src").partition("base64,")[2])
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def text_after(page, selector, before):
  """Waits until the text of an element changes; returns the new text."""
  page.wait_for_function(
    "([selector, before]) => document.querySelector(selector).innerText !== before",
    arg=[selector, before],
  )
  return page.locator(selector).inner_text()


def move_slider(page, name, value):
  """Sets a slider through its number field."""
  number = page.locator(f"{name} input[type=number]")
  number.fill(str(value))
  number.press("Enter")


def fits(page):
  widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
  return widths[0] <= widths[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_photograph_becomes_a_mask_and_files(visit, photograph, tmp_path, width):
  page = visit(width)
  send(page, photograph)
  mask = picture(page, "Mask of your image")
  probability = Segmenter.restore("pretrained:faces")(photograph)
  assert ((mask[..., 0] > 127) == (probability > 0.5)).mean() > 0.999
  share = page.locator("#views .lead").inner_text()
  assert share == f"{100 * (probability > 0.5).mean():.1f}% of the pixels are foreground."

  move_slider(page, "#threshold", 0.9)
  moved = text_after(page, "#views .lead", share)
  assert moved == f"{100 * (probability > 0.9).mean():.1f}% of the pixels are foreground."
  assert fits(page)

  page.locator("#make").click()
  with page.expect_download() as download:
    page.locator("#files a[download='astronaut_head_mask.png']").click()
  download.value.save_as(tmp_path / "mask.png")
  mask = reading.read_mask(tmp_path / "mask.png")
  assert (mask == (probability > 0.9)).mean() > 0.999
  assert page.locator("#files a[download]").count() == 4


def test_the_example_opens_wherever_the_command_was_started(visit, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  page = visit()
  page.locator("#example").click()
  assert picture(page, "Mask of your image").any()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_shift_moves_pixels_and_verdicts_at_once(visit, width):
  page = visit(width)
  page.get_by_role("tab", name="The direction").click()
  page.locator("#latents .latent").first.wait_for()
  before = picture(page, "Latent 1: light")
  verdict = page.locator("#latents .verdict").first.inner_text()
  lead = page.locator("#latents .lead").inner_text()
  move_slider(page, "#shift", 0)
  assert "at a shift of 0.0" in text_after(page, "#latents .lead", lead)
  assert (picture(page, "Latent 1: light") == picture(page, "Latent 1: unshifted")).all()
  assert (picture(page, "Latent 1: light") != before).any()
  still = page.locator("#latents .verdict").first.inner_text()
  assert "area" in still and "area" not in verdict
  assert not picture(page, "Latent 1: mask").any()
  assert page.locator("#latents .latent").count() == 6 and fits(page)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
def test_how_the_direction_was_found_is_shown(visit, width):
  page = visit(width)
  page.get_by_role("tab", name="How it was found").click()
  page.locator("#search .charts svg").first.wait_for()
  assert page.locator("#search .snapshots img").count() == 4
  assert fits(page)


@pytest.mark.parametrize(
  ("kind", "message"), [("text", "is not an image"), ("bomb", "at most 25 million")]
)
def test_what_is_refused_is_one_message_and_the_page_lives_on(
  visit, refused, photograph, kind, message
):
  page = visit()
  for _ in range(2):  # The second time after an accepted image.
    send(page, refused[kind])
    said = page.get_by_test_id("toast-text")
    said.wait_for()
    assert said.count() == 1
    assert message in said.inner_text() and refused[kind].name in said.inner_text()
    playwright.expect(page.locator("#views img, #picture img")).to_have_count(0)
    page.get_by_test_id("toast-close").click()
    said.wait_for(state="detached")
    send(page, photograph)
    assert picture(page, "Mask of your image").any()
    assert said.count() == 0
    page.locator("#picture").get_by_label("Remove Image").click()
    page.locator("#views").get_by_text("Drop an image").wait_for()


def test_another_visitor_sees_nothing_of_the_first_ones_picture(visit, photograph):
  first, second = visit(), visit()
  send(first, photograph)
  assert picture(first, "Mask of your image").any()
  assert second.locator("#views img").count() == 0
  second.locator("#make").click()
  assert "No image to segment" in second.get_by_test_id("toast-text").inner_text()
  first.reload()
  first.locator("#example").wait_for()
  assert first.locator("#views img").count() == 0


@pytest.mark.slow
def test_a_page_that_is_closed_takes_its_picture_along(visit, served, photograph):
  def held():
    sessions = served.state_holder.session_data.values()
    return [value for session in sessions for value in session.state_data.values() if value]

  page = visit()
  send(page, photograph)
  assert picture(page, "Mask of your image").any()
  (kept,) = (each for each in held() if each.name == photograph.stem)
  page.close()
  wait_until(lambda: all(each is not kept for each in held()), "the picture is still kept")


@pytest.mark.slow
def test_the_clipboard_and_the_camera_give_pictures_and_one_can_be_taken_away(visit):
  page = visit()
  page.evaluate(
    """async () => {
      const canvas = new OffscreenCanvas(90, 80);
      canvas.getContext('2d').fillRect(10, 10, 50, 50);
      const blob = await canvas.convertToBlob();
      await navigator.clipboard.write([new ClipboardItem({[blob.type]: blob})]);
    }"""
  )
  page.locator("#picture").get_by_label("Paste from clipboard").click()
  assert picture(page, "Overlay of your image").shape == (80, 90, 3)
  page.locator("#picture").get_by_label("Remove Image").click()
  page.locator("#views").get_by_text("Drop an image").wait_for()
  assert page.locator("#views img").count() == 0
  page.locator("#picture").get_by_label("Capture from camera").click()
  page.get_by_text("Click to Access Webcam").click()
  page.wait_for_function("document.querySelector('#picture video')?.videoWidth > 0")
  page.locator("#picture").get_by_label("capture photo").click()
  assert picture(page, "Overlay of your image").shape[1] > 90


@pytest.mark.slow
def test_a_composite_stands_on_the_picture_that_is_chosen(visit, photograph, tmp_path):
  page = visit()
  page.locator("#example").click()
  on_colour = picture(page, "Composite of your image")
  Image.new("RGB", (20, 20), (255, 0, 0)).save(tmp_path / "red.png")
  send(page, tmp_path / "red.png", "#other")
  page.wait_for_function(
    "before => document.querySelector('#views img.composite').src !== before",
    arg=page.locator("#views img.composite").get_attribute("src"),
  )
  on_red = picture(page, "Composite of your image")
  assert on_colour[0, 0, 2] > on_colour[0, 0, 0] and on_red[0, 0, 0] > on_red[0, 0, 2] + 60
