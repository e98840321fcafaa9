"""`benchmarks/accelerator.py` as a user runs it: each part reports numbers or fails alone."""

import json
import math
import os
import subprocess
import sys

import pytest
from whole_runs import ROOT

PARTS = (
  "machine",
  "golden",
  "unet",
  "generators",
  "segmenter",
  "pytorch",
  "main_job",
  "profile",
)
FAILED, MISSING, SKIPPED = "failed: ", "not measured: ", "skipped: "


def run(output, *flags, **environment):
  """Runs the command; returns its exit status, its rows, and its output."""
  done = subprocess.run(
    [sys.executable, "benchmarks/accelerator.py", "--smoke", f"--output={output}", *flags],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )
  assert not done.stderr, done.stderr
  rows = [json.loads(line) for line in output.read_text().splitlines()]
  for row in rows:
    assert list(row) == ["part", "what", "value", "unit", "note"]
  return done.returncode, rows, done.stdout


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
  """The output file of all parts in their smallest form, and the result of `run`."""
  output = tmp_path_factory.mktemp("smoke") / "found.jsonl"
  # Optimising takes longer than running such small programs.
  return output, *run(output, JAX_DISABLE_MOST_OPTIMIZATIONS="1")


def of_part(rows, part):
  return {row["what"]: row for row in rows if row["part"] == part}


def test_every_part_measures_and_nothing_fails(smoke):
  _, status, rows, _ = smoke
  assert not [row for row in rows if row["note"].startswith((FAILED, SKIPPED))]
  assert status == 0
  # JAX does not report the memory of a CPU.
  missing = [row for row in rows if row["note"].startswith(MISSING)]
  assert all("memory" in row["what"] for row in missing)
  assert list(dict.fromkeys(row["part"] for row in rows)) == list(PARTS)
  for row in rows:
    assert (row["value"] is None) == (row in missing), row
    if isinstance(row["value"], (int, float)):
      assert math.isfinite(row["value"]) and row["value"] >= 0, row
      if row["part"] != "golden" and not row["what"].startswith("IoU"):
        assert row["value"] > 0, row


def test_golden_results_are_within_the_tolerances_of_the_tests(smoke):
  golden = of_part(smoke[2], "golden")
  compared = [what for what, row in golden.items() if row["note"].startswith("within the toler")]
  for words in ("images of", "loss ", "masks, ", "filters, ", "logits", "training step", "search"):
    assert any(words in what for what in compared), words
  for network in ("dcgan", "biggan", "biggan_deep", "selfcond", "stylegan2"):
    assert f"images of {network}" in compared
  assert golden["verdicts that change, bfloat16"]["value"] <= 1
  for how in ("default precision", "bfloat16"):
    assert 0 < golden[f"images of dcgan, {how}"]["value"] < 0.1


def test_rows_say_what_a_machine_is_for(smoke):
  rows = smoke[2]
  machine, unet = of_part(rows, "machine"), of_part(rows, "unet")
  assert machine["jax"]["unit"] == "version" and machine["device"]["value"] == "cpu"
  for name in ("float32", "tf32", "bfloat16"):
    assert machine[f"matrix product, {name}"]["unit"] == "TFLOP/s"
  assert machine["copy"]["unit"] == "GB/s"
  assert {"ms", "pictures/s", "TFLOP/s", "%", "GiB"} <= {row["unit"] for row in unet.values()}
  generators = of_part(rows, "generators")
  for name in ("bigbigan-128", "biggan-deep-256", "stylegan2-1024"):
    assert generators[f"{name}, candidates, chunk 2"]["unit"] == "candidates/s"
    assert any(what.startswith(f"{name}, search step") for what in generators)
  assert "bigbigan-128, candidates, chunk 4" in generators
  assert "all kept" in generators["bigbigan-128, step on the fly"]["note"]
  segmenter = of_part(rows, "segmenter")
  for name in ("the shipped one", "paper's width"):
    assert segmenter[f"{name}: implicit transfer to the device"]["value"] in ("yes", "no")
  assert of_part(rows, "pytorch")["bigbigan-128, float32: ratio"]["value"] > 0
  assert {"stage search", "stage train", "the main job", "IoU, synthetic"} <= of_part(
    rows, "main_job"
  ).keys()


def test_the_table_and_the_profiles_lie_beside_the_rows(smoke):
  output, _, rows, printed = smoke
  table = output.with_suffix(".md").read_text()
  assert table in printed and len(table.splitlines()) == len(rows) + 2
  for row in rows:
    assert f"| {row['what']} |" in table and row["what"] in printed
  profiles = list(output.with_suffix("").rglob("*.xplane.pb"))
  assert len(profiles) == 2
  size = sum(path.stat().st_size for path in output.with_suffix("").rglob("*") if path.is_file())
  assert size < 10e6
  assert "--- profile ---" in output.with_suffix(".log").read_text()


def test_what_kills_a_part_costs_that_part_alone(tmp_path):
  (tmp_path / "torch.py").write_text("import os\n\nos.abort()\n")
  output = tmp_path / "found.jsonl"
  flags = ("--parts=pytorch,machine",)
  status, rows, printed = run(output, *flags, PYTHONPATH=str(tmp_path))
  assert status == 1
  (killed,) = of_part(rows, "pytorch").values()
  assert killed["value"] is None and killed["note"].startswith(f"{FAILED}killed by SIGABRT")
  assert killed["note"] in printed
  machine = of_part(rows, "machine")
  assert len(machine) > 10 and not any(row["note"].startswith(FAILED) for row in machine.values())


def test_a_device_that_does_not_start_is_one_row_for_each_part(tmp_path):
  parts = "--parts=machine,profile"
  status, rows, _ = run(tmp_path / "found.jsonl", parts, JAX_PLATFORMS="nonsense")
  assert status == 1 and [row["part"] for row in rows] == ["machine", "profile"]
  for row in rows:
    assert row["note"].startswith(FAILED) and "nonsense" in row["note"], row


def test_a_part_stops_when_its_time_is_used_up(tmp_path):
  status, rows, _ = run(tmp_path / "found.jsonl", "--parts=golden", "--seconds=6")
  assert status == 0
  assert rows[-1]["what"] == "the whole part" or rows[-1]["note"].startswith(SKIPPED)
  assert any(row["note"].startswith(SKIPPED) for row in rows)


def test_without_time_the_parts_left_are_named(tmp_path):
  output = tmp_path / "found.jsonl"
  for call in (1, 2):  # The second call appends its rows; its table contains only its own.
    status, rows, printed = run(output, "--seconds=1")
    assert status == 0
    assert [row["part"] for row in rows] == call * list(PARTS)
    assert all(row["note"] == f"{SKIPPED}no time is left" for row in rows)
    assert len(output.with_suffix(".md").read_text().splitlines()) == len(PARTS) + 2
  assert "no time is left" in printed
