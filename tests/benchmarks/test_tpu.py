"""Reports on programs that are compiled for TPUs without a TPU."""

import importlib
import importlib.util
import json
import runpy
import sys

import jax
import jax.numpy as jnp
import pytest
from whole_runs import ROOT

BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = 53_573_640


@pytest.fixture
def load(monkeypatch):
  """Imports a module of the benchmarks."""
  monkeypatch.syspath_prepend(str(BENCHMARKS))
  return importlib.import_module


@pytest.fixture
def run(load, monkeypatch, capsys):
  """Runs `python benchmarks/tpu.py FLAGS`; returns its output."""

  def run(*flags):
    monkeypatch.setattr(sys, "argv", ["tpu.py", *flags])
    runpy.run_path(str(BENCHMARKS / "tpu.py"), run_name="__main__")
    return capsys.readouterr().out

  return run


def collective(operation, source, size, times=1.0):
  return {"operation": operation, "source": source, "times": times, "bytes": size}


def result(stage="train", chips=16, **changed):
  """Returns a program's result in the form that the compiling process prints."""
  found = {
    "stage": stage,
    "generator": "bigbigan-128",
    "chips": chips,
    "dtype": "bfloat16",
    "note": "batch 128",
    "chunk": 64,
    "gathers backgrounds": False,
    "seconds": 0.1,
    "flops": 0.02 * 197e12,
    "memory": 2**31,
    "bytes": 5e10,
    "traffic": 2.5e10,
    "kinds": {"product conv": 0.05, "movement stack": 0.03, **{f"k{i}": 1e-3 for i in range(9)}},
    "without estimate": [{"kind": "scatter", "elements": 3145728, "times": 2.0}],
    "collectives": [
      collective("all-reduce", "jit(step)/psum", WEIGHTS),
      *[collective("all-reduce", f"jit(step)/Unet/up_{i}/norm_1/psum", 2048) for i in range(36)],
    ],
  }
  return found | changed


def test_a_row_shows_time_share_memory_and_costliest_kinds(load):
  row = dict(zip(load("tpu").HEADINGS, load("tpu").row(result()), strict=True))
  assert row["program"] == "train, bfloat16, batch 128"
  assert (row["estimate"], row["full rate"]) == ("100 ms", "20 ms (20%)")
  assert (row["memory"], row["accessed"], row["HBM"]) == ("2.0 GiB", "50.0 GB", "25.0 GB")
  assert row["where it goes, ms"] == "product conv 50, movement stack 30, k0 1, k1 1, k2 1"
  assert row["without estimate"] == "2 scatter of 3,145,728"


def test_a_program_that_does_not_fit_the_chip_has_an_error_in_its_row(load):
  row = load("tpu").row(
    {name: result()[name] for name in ("stage", "generator", "dtype", "chips", "note")}
    | {"error": "RESOURCE_EXHAUSTED: used 20.1G of 15.75G hbm"}
  )
  assert len(row) == len(load("tpu").HEADINGS)
  assert row[2] == "-" and "20.1G of 15.75G" in row[7]


def test_one_gradient_and_small_sums_of_batch_norms_are_as_expected(load):
  told = load("tpu").crossing(result())
  assert "1 all-reduce of the gradient, 53.6 MB" in told
  assert "36 all-reduce of batch norms, 73.7 kB" in told
  assert told.endswith("nothing else crosses chips")


@pytest.mark.parametrize(
  "more",
  [
    collective("all-reduce", "jit(step)/psum", WEIGHTS),
    collective("all-reduce", "jit(step)/Unet/up_1/norm_1/psum", WEIGHTS),
    collective("all-gather", "jit(step)/all_gather", 2048),
    collective("collective-permute", "jit(step)/ppermute", 2048),
  ],
)
def test_whatever_else_crosses_chips_is_pointed_out(load, more):
  found = result()
  assert "NOT WHAT IS EXPECTED" in load("tpu").crossing(
    found | {"collectives": [*found["collectives"], more]}
  )


def test_pairs_and_backgrounds_may_be_gathered_where_they_are_made(load):
  pairs = collective("all-gather", "jit(step)/while/body/all_gather", 2048)
  pictures = collective("all-gather", "jit(step)/all_gather", 2048)
  sums = result()["collectives"]
  verdicts = collective("all-reduce", "", 512, times=0.25)
  told = load("tpu").crossing(result("on_the_fly", collectives=[*sums, pairs, verdicts]))
  assert told.endswith("nothing else crosses chips")
  told = load("tpu").crossing(
    result(collectives=[*sums, pictures], **{"gathers backgrounds": True})
  )
  assert "nothing else crosses chips" in told
  assert "backgrounds of other pairs gather the whole batch" in told


def test_the_papers_run_is_projected_for_each_number_of_chips(load, capsys):
  stages = ("search", "candidates", "train", "on_the_fly")
  results = [result(stage, chips, seconds=1.6 / chips) for stage in stages for chips in (1, 16)]
  results.append(result("search", 1, generator="selfcondgan", seconds=99.0))
  units = load("tpu").measured(results, {}, 28)
  assert list(units) == ["1 x v5e", "16 x v5e"]

  paper = importlib.import_module("unseg_jax.configs.bigbigan").get_config()
  one, sixteen = (
    load("paper_run.projection").project(found, paper, 0.3) for found in units.values()
  )
  assert one["search"] == pytest.approx(300 * 1.6)
  assert one["train"] == pytest.approx(18_000 * 1.6)
  assert one["generate"] == pytest.approx(1e6 / 0.3 * 1.6 / 64)
  # A chunk on each of 16 chips takes 0.1 s.
  assert sixteen["generate"] == pytest.approx(1e6 / 0.3 * 0.1 / (16 * 64))
  assert sixteen["train"] == pytest.approx(18_000 * 0.1)

  load("paper_run.projection").print_table(units, paper, 0.3, "by the estimates")
  assert "The paper's run by the estimates, if the filters keep 30%" in capsys.readouterr().out


def test_the_slower_of_chip_and_host_counts(load):
  stages = ("search", "candidates", "train")
  results = [result(stage, chips, seconds=0.1) for stage in stages for chips in (1, 8, 16)]
  host = {"write": {"cpu": 1e-3, "serial": 2e-4}, "read": {"cpu": 1e-3, "serial": 2e-4}}
  paper = importlib.import_module("unseg_jax.configs.bigbigan").get_config()

  def times(cores):
    units = load("tpu").measured(results, host, cores)
    return [load("paper_run.projection").project(found, paper, 0.3) for found in units.values()]

  one, eight, _ = times(28)
  assert one["train"] == pytest.approx(18_000 * 0.1)  # The chip is slower than the host.
  assert one["generate"] == pytest.approx(1e6 / 0.3 * 0.1 / 64)
  # On one host with eight chips, the serial work limits the rate.
  assert eight["generate"] == pytest.approx(1e6 / 0.3 * 0.1 / (8 * 64))
  assert load("tpu").host_seconds(host["read"], 8, 28) == 2e-4
  assert load("tpu").host_seconds(host["read"], 16, 28) == 1e-4
  one, *_ = times(1)
  assert one["train"] == pytest.approx(18_000 * 128 * 1e-3)
  assert one["generate"] == pytest.approx(1e6 / 0.3 * 0.1 / 64)


def test_training_is_compiled_once_and_the_rest_for_each_generator(load):
  found = load("tpu").programs(["search", "train"], ["selfcondgan", "biggan-128"])
  assert found == [("search", "selfcondgan"), ("search", "biggan-128"), ("train", "selfcondgan")]


@pytest.mark.slow
def test_the_labelling_of_real_masks_takes_a_few_turns(load):
  config = load("unseg_jax.configs.dcgan_faces").get_config().generate
  config.chunk = 4
  turns = load("tpu_estimates.programs").labelling_turns(config, 64)
  assert turns and all(1 <= number <= 64 for number in turns)


def test_products_within_a_loop_count_as_often_as_it_turns(load):
  def products(x):
    x = jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)
    return x @ x

  traced = jax.make_jaxpr(products)(jnp.zeros((8, 8)))
  count = load("common.work").product_flops
  assert count(traced) == 2 * 2 * 8**3
  assert count(traced, 2.5) == 3.5 * 2 * 8**3


def test_products_with_the_zeros_between_pixels_do_not_count(load):
  def dilated(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    padding = ((2, 2), (2, 2))
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=dimensions
    )

  traced = jax.make_jaxpr(dilated)(jnp.zeros((1, 8, 8, 3)), jnp.zeros((4, 4, 3, 5)))
  # Of the 4 x 4 inputs of the kernel, all but 2 x 2 are inserted zeros.
  assert load("common.work").product_flops(traced) == 2 * 16**2 * (2 * 2 * 3) * 5


def test_without_the_compiler_the_extra_is_named(run, monkeypatch, capsys):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name)
  )
  with pytest.raises(SystemExit):
    run("--stages=train")
  assert "libtpu" in (told := capsys.readouterr().err) and "pip install -e '.[tpu]'" in told


@pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu, the TPU's compiler, is not installed: pip install -e '.[tpu]'",
)
def test_a_small_search_is_compiled_for_four_chips(run, tmp_path):
  flags = ("--stages=search", "--generators=dcgan-faces", "--chips=4", "--batch=8")
  printed = run(*flags, f"--json={tmp_path / 'found.json'}", f"--text={tmp_path / 'text'}")

  assert "| search, dcgan-faces, bfloat16, batch 8 | 4 |" in printed
  assert "1 all-reduce of the gradient" in printed and "nothing else crosses" in printed
  (found,) = json.loads((tmp_path / "found.json").read_text())
  assert 0 < found["flops"] / 197e12 < found["seconds"] < 1e-2
  assert 0 < found["memory"] < 2**30 and found["traffic"] > 0
  assert sum(found["kinds"].values()) == pytest.approx(found["seconds"])
  assert "ENTRY" in (tmp_path / "text" / "search-dcgan-faces-4.txt").read_text()
