"""Every script of benchmarks/ prints its documented results in its smallest form.

The tests do not check speed. They check that times are printed, and that compared alternatives did
the same work.
"""

import json
import re
import runpy
import sys

import jax
import pytest
import torch
from golden_unet import make_state_dict
from whole_runs import ROOT

from checkpoints_convert.convert import convert_file
from unseg_jax import pipeline  # noqa: F401  Imported before the first script.

pytestmark = pytest.mark.usefixtures("compile_quickly")

BENCHMARKS = ROOT / "benchmarks"
NUMBER = r"(\d[\d,]*\.?\d*(?:e[-+]\d+)?)"


@pytest.fixture
def run(monkeypatch, capsys):
  """Runs a script as `python benchmarks/NAME.py FLAGS` does; returns its output."""
  monkeypatch.syspath_prepend(str(BENCHMARKS))

  def run(name, *flags):
    monkeypatch.setattr(sys, "argv", [name, *flags])
    runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    return capsys.readouterr().out

  return run


def numbers(printed, pattern):
  """Returns the numbers in the output at each `#` of the pattern."""
  expression = re.escape(pattern).replace(r"\#", NUMBER)
  found = re.search(expression, printed)
  assert found, f"{pattern!r} is not in:\n{printed}"
  return [float(number.replace(",", "")) for number in found.groups()]


def assert_printed(printed, pattern):
  """Checks that the output contains the pattern, with positive numbers."""
  found = numbers(printed, pattern)
  assert min(found) > 0, found


def rows(printed):
  """Returns the rows of all printed tables as lists of cells."""
  cells = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")]
  stripped = [[cell.strip() for cell in row] for row in cells]
  return [row for row in stripped if "---" not in row[0]]


def columns(printed, heading):
  """Returns the table with this heading, by the first cell of its rows: `{row: {column: cell}}`."""
  found = rows(printed)
  start = next(i for i, row in enumerate(found) if heading in row)
  names = found[start]
  same = [row for row in found[start + 1 :] if len(row) == len(names)]
  return {row[0]: dict(zip(names, row, strict=True)) for row in same}


def projection(printed):
  """Returns the projected times of one type, `{part: time}`."""
  return {row[0].partition(":")[0]: row[1] for row in rows(printed) if len(row) == 2 and row[0]}


class TestComparePytorch:
  def test_both_compute_the_same_and_take_turns(self, run):
    sizes = ("--chunk=16", "--batch=2", "--divisor=16")
    printed = run("compare_pytorch.py", "--rounds=1", "--steps=1", *sizes)

    losses, direction = numbers(printed, "losses differ by #, the direction by # after")
    assert losses < 1e-4
    assert direction < 1e-3
    agree, of, pixels = numbers(
      printed, "pairs: # of # verdicts agree, the masks' pixels differ by #"
    )
    assert of == 64 and agree >= 63 and pixels < 1e-3
    ours, theirs = numbers(printed, "JAX keeps #%, PyTorch #%")
    assert 0 < ours < 100
    assert ours == pytest.approx(theirs, abs=2)
    logits, first, second = numbers(
      printed, "logits differ by #, training losses of steps 1 and 2 by # and #"
    )
    assert logits < 1e-4
    assert first < 1e-4
    assert second < 1e-3  # Adam's first step amplifies differences between small gradients.

    table = columns(printed, "ratio")
    assert list(table) == [
      "search step, batch 32",
      "kept pairs, chunks of 16",
      "U-Net training step, batch 2",
      "U-Net training step, batch 2, channels_last",
    ]
    for row in table.values():
      assert all(float(row[name]) > 0 for name in ("JAX", "PyTorch", "ratio")), row


SMALL_PAPER = ("--batch=2", "--chunk=2", "--rounds=1", "--seconds=0.01", "--divisor=16")


class TestPaper:
  def test_times_every_stage_and_projects_the_whole_run(self, run):
    printed = run("paper.py", *SMALL_PAPER, "--restarts=2", "--dtype=float32")

    table = columns(printed, "measurement")
    assert list(table) == [
      "search step, 1 restart",
      "search step, 2 restarts",
      "generator",
      "candidates, devices alone",
      "kept pairs, onto the disk",
      "training step, pairs on the devices",
      "training step, pairs from the disk",
      "training step, pairs on the fly",
    ]
    for row in table.values():
      assert float(row["rate"]) > 0 and float(row["TFLOP/s"]) > 0, row
    for name in ("generator", "training step, pairs on the devices"):
      assert float(table[name]["PyTorch"]) > 0 and float(table[name]["ratio"]) > 0
    for what in ("images differ", "first loss differs"):
      (apart,) = numbers(printed, f"{what} from PyTorch's by #")
      assert apart < 1e-4
    # The compiler counts little besides products, and no counted operation is missing.
    for row in table.values():
      assert row["XLA"] == "-" or 0.8 < float(row["XLA"]) < 1.3, row
    assert "100% kept; devices idle" in table["kept pairs, onto the disk"]["note"]

    projected = projection(printed)
    assert len(projected) == 6
    for time in projected.values():
      value, unit = time.split()
      assert float(value) > 0 and unit in ("s", "min", "h", "days")

  @pytest.mark.slow
  def test_compares_types_and_reports_what_was_not_measured(self, run, tmp_path):
    torch.save({k: torch.tensor(v) for k, v in make_state_dict(16).items()}, tmp_path / "unet.pth")
    segmenter = tmp_path / "unet.safetensors"
    convert_file(tmp_path / "unet.pth", segmenter, "unet")
    chosen = ("--stages=search", "--restarts=1", "--dtype=bfloat16", "--no-torch")
    printed = run("paper.py", *SMALL_PAPER, *chosen, "--compared=16", f"--segmenter={segmenter}")

    assert "PyTorch not wanted" in printed
    projected = projection(printed)
    assert [name for name, time in projected.items() if time != "-"] == ["search"]
    masks, *_ = numbers(printed, "16 candidates of pretrained:dcgan_faces: masks agree on #%")
    assert 99 < masks <= 100
    classes, _ = numbers(printed, "the same class on #% of the pixels; the worst picture: #%")
    assert 95 < classes <= 100


class TestBfloat16:
  def test_prints_the_agreement_of_masks_and_directions(self, run):
    printed = run("bfloat16.py", "--steps=2", "--batch=4", "--count=8")

    (cosine,) = numbers(printed, "64 px: cosine of the directions after 2 steps #")
    assert 0.99 < cosine <= 1.00001
    for searched in ("float32", "bfloat16"):
      pattern = f"candidates in bfloat16, search in {searched}: masks agree on #% of the pixels"
      (agree,) = numbers(printed, pattern)
      assert 98 < agree <= 100


class TestStyleGan3:
  def test_both_compute_the_same_and_take_turns(self, run):
    sizes = ("--kinds=t", "--size=64", "--divisor=16", "--rounds=1")
    printed = run("stylegan3.py", *sizes)

    (apart,) = numbers(printed, "T: images differ by # at most")
    assert apart < 1e-4
    table = columns(printed, "ratio")
    assert list(table) == [
      "StyleGAN3-T, search step, batch 2",
      "StyleGAN3-T, chunk of 2 candidates",
    ]
    for row in table.values():
      assert all(float(row[name]) > 0 for name in ("JAX", "PyTorch", "ratio"))


class TestFaces:
  def test_every_part_prints_its_times(self, run):
    sizes = ("--pairs=32", "--chunk=16", "--restarts=2", "--steps=1")
    printed = run("faces.py", "--rounds=1", *sizes)

    assert_printed(printed, "kept pairs onto the disk: JAX #/s, PyTorch #/s, ratio #")
    (idle,) = numbers(printed, "JAX's device idle #%")
    assert 0 <= idle <= 100
    assert_printed(
      printed, "32 pairs made and trained on, batch 16: through the disk # s, on the fly # s"
    )
    assert_printed(printed, "search step: # ms with 1 restart, # ms with 2, # times as long")

  def test_candidates_are_made_until_there_are_enough(self, run):
    printed = run("faces.py", "--candidates=24", "--shard=16", "--chunk=16")

    for made in (16, 32):
      assert_printed(printed, f"{made} candidates: # GiB at most; this shard has # pairs, # MiB")
    assert "48 candidates:" not in printed
    assert_printed(printed, "# candidates/s")


class TestGenerate:
  @pytest.mark.parametrize(
    "names",
    ["biggan-deep-128", pytest.param("biggan-deep-128,selfcondgan", marks=pytest.mark.slow)],
  )
  def test_rates_of_generators_with_and_without_a_twin(self, run, names):
    printed = run("generate.py", f"--generators={names}", "--batch=1", "--rounds=1")

    table = columns(printed, "generator")
    assert list(table) == names.split(",")
    for row in table.values():
      assert row["size"] == "128"
      assert float(row["float32"]) > 0 and float(row["bfloat16"]) > 0
    assert float(table["biggan-deep-128"]["PyTorch"]) > 0
    assert all(row["PyTorch"] == "-" for name, row in table.items() if name == "selfcondgan")
    (apart,) = numbers(printed, "images differ from PyTorch's by # on average")
    assert apart < 1e-4

  def test_memory_of_a_search_step(self, run):
    printed = run("generate.py", "--memory", "--generators=selfcondgan")
    assert_printed(
      printed, f"search step, batch 32, microbatch all: # GiB on {jax.devices()[0].device_kind}"
    )


class TestEvaluate:
  @pytest.mark.parametrize("suffix", ["jpg", pytest.param("png", marks=pytest.mark.slow)])
  def test_whole_and_network_alone(self, run, suffix):
    printed = run("evaluate.py", "--pictures=8", f"--format={suffix}")

    table = columns(printed, "pictures")
    expected = ["paper's metrics", "network alone", "with saliency", "with guided filter"]
    assert list(table) == expected
    for row in table.values():
      assert row["pictures"] == "8"
      assert float(row["pictures/s"]) > 0 and float(row["ms/picture"]) > 0
    assert f"8 {suffix} pictures of 400 x 300" in printed
    assert "outside the network: " in printed


class TestPredict:
  def test_many_pictures(self, run):
    flags = ("--pictures=4", "--devices=1", "--processes=1")
    table = columns(run("predict.py", *flags), "devices of each")
    assert list(table) == ["1"] and table["1"]["devices of each"] == "1"
    assert float(table["1"]["seconds"]) > 0


class TestExport:
  def test_a_picture_through_jax_and_through_onnxruntime(self, run):
    table = columns(run("export.py", "--sizes=33,64", "--rounds=1"), "onnxruntime, ms")

    assert list(table) == ["33 x 33", "64 x 64", "photograph"]
    for row in table.values():
      assert all(float(row[name]) > 0 for name in list(row)[1:-1]), row
      assert float(row["probabilities differ by"]) < 1e-4


class TestHost:
  def test_measures_every_part_and_prints_the_demand_of_chips(self, run, tmp_path):
    written = tmp_path / "host.json"
    flags = ("--sizes=64", "--workers=0,1", "--pairs=32", "--rounds=1", f"--json={written}")
    printed = run("host.py", *flags)
    parts = ("write", "read", "predict")
    measured = [row for row in rows(printed) if row[0] in parts and len(row) == 6]
    assert len(measured) == 3 * 2
    for row in measured:
      rate, cpu, serial = map(float, row[3:])
      assert rate > 0 and cpu >= serial > 0, row
    for loop in ("search", "generate", "train", "predict"):
      assert_printed(printed, f"Python's time of a step of {loop}: # ms")
    costs = json.loads(written.read_text())
    assert costs.keys() == {"write", "read", "predict"} and costs["read"]["cpu"] > 0
