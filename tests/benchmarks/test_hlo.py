"""Parsing of compiled programs: their operations, counts and estimates."""

import importlib

import pytest
from whole_runs import ROOT


@pytest.fixture
def hlo(monkeypatch):
  monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
  return importlib.import_module("tpu_estimates.hlo")


def estimate(cycles):
  return f'backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'


def program(hlo, *entry, others=""):
  body = "\n".join(f"  {line}" for line in entry)
  return hlo.parse(f"HloModule m\n\n{others}\nENTRY %main (a: f32[4]) -> f32[4] {{\n{body}\n}}\n")


def loop(trips=""):
  others = f"""%body (s: f32[8]) -> f32[8] {{
  %s = f32[8]{{0}} parameter(0)
  ROOT %step = f32[8]{{0:T(128)}} negate(%s), {estimate(10)}
}}

%condition (s: f32[8]) -> pred[] {{
  %t = f32[8]{{0}} parameter(0)
  ROOT %go = pred[] compare(%t, %t), direction=LT, {estimate(1)}
}}
"""
  line = f"ROOT %loop = f32[8]{{0}} while(%a), condition=%condition, body=%body{trips}"
  return ("%a = f32[8]{0} parameter(0)", f'{line}, metadata={{op_name="jit(f)/while"}}'), others


def test_everything_that_runs_is_added_up(hlo):
  parsed = program(
    hlo,
    "%a = f32[4]{0:T(128)} parameter(0)",
    f"%b = f32[4]{{0:T(128)}} add(%a, %a), {estimate(100)}",
    f"ROOT %c = f32[4]{{0:T(128)S(1)}} copy(%b), {estimate(25)}",
  )
  assert hlo.cycles(hlo.runs(parsed)) == 125


def test_a_loop_counts_as_often_as_the_compiler_knows_it_to_turn(hlo):
  entry, others = loop(', backend_config={"known_trip_count":{"n":"7"}}')
  assert hlo.cycles(hlo.runs(program(hlo, *entry, others=others))) == 7 * 11


def test_a_loop_of_unknown_length_needs_a_number(hlo):
  entry, others = loop()
  parsed = program(hlo, *entry, others=others)
  assert hlo.cycles(hlo.runs(parsed, [2.5])) == 2.5 * 11
  with pytest.raises(ValueError, match=r"iterations of the loop loop \(jit\(f\)/while\)"):
    hlo.runs(parsed)


def test_numbers_go_to_nested_loops_from_the_outside_in(hlo):
  entry, others = loop()
  outer = f"""{others}
%outer (s: f32[8]) -> f32[8] {{
  %o = f32[8]{{0}} parameter(0)
  ROOT %inner = f32[8]{{0}} while(%o), condition=%condition, body=%body
}}
"""
  entry = (entry[0], entry[1].replace("body=%body", "body=%outer"))
  assert hlo.cycles(hlo.runs(program(hlo, *entry, others=outer), [2, 5])) == 2 * (1 + 5 * 11)


def test_of_a_conditional_the_longest_branch_counts(hlo):
  branches = "".join(
    f"%{name} (s: f32[8]) -> f32[8] {{\n  ROOT %r{n} = f32[8]{{0}} negate(%a), {estimate(n)}\n}}\n"
    for name, n in (("yes", 40), ("no", 3))
  )
  chosen = "ROOT %c = f32[8]{0} conditional(%a, %a, %a), branch_computations={%yes, %no}"
  parsed = program(hlo, "%a = f32[8]{0} parameter(0)", chosen, others=branches)
  assert hlo.cycles(hlo.runs(parsed)) == 40


FUSIONS = """%inside (p: bf16[2,8]) -> bf16[2,8] {
  %p = bf16[2,8]{1,0} parameter(0)
  ROOT %conv = bf16[2,8]{1,0} convolution(%p, %p), dim_labels=bf_io->bf
}

%moved (q: bf16[2,8]) -> bf16[16] {
  %q = bf16[2,8]{1,0} parameter(0)
  ROOT %r = bf16[16]{0} reshape(%q)
}

%add (x: s32[], y: s32[]) -> s32[] {
  %x = s32[] parameter(0)
  %y = s32[] parameter(1)
  ROOT %z = s32[] add(%x, %y)
}

%histogram (h: s32[13], i: s32[640,1], u: s32[640]) -> s32[13] {
  %h = s32[13]{0} parameter(0)
  %i = s32[640,1]{1,0} parameter(1)
  %u = s32[640]{0} parameter(2)
  ROOT %sc = s32[13]{0} scatter(%h, %i, %u), to_apply=%add
}
"""
ENTRY = (
  "%a = bf16[2,8]{1,0} parameter(0)",
  "%h0 = s32[13]{0} parameter(1)",
  "%i0 = s32[640,1]{1,0} parameter(2)",
  "%u0 = s32[640]{0} parameter(3)",
  f"%f = bf16[2,8]{{1,0:T(8,128)(2,1)S(1)}} fusion(%a), kind=kOutput, calls=%inside, "
  f'metadata={{op_name="jit(f)/net/conv"}}, {estimate(300)}',
  f"%g = bf16[16]{{0}} fusion(%f), kind=kLoop, calls=%moved, "
  f'metadata={{op_name="jit(f)/up/stack"}}, {estimate(500)}',
  "%s = s32[13]{0} fusion(%h0, %i0, %u0), kind=kCustom, calls=%histogram",
  '%k = f32[6]{0} custom-call(%g), custom_call_target="tpu_custom_call"',
  '%out = (f32[64]{0}, f32[]) all-reduce(%w, %l), to_apply=%add, metadata={op_name="jit(f)/psum"}',
  "%w = f32[64]{0} parameter(4)",
  "%l = f32[] parameter(5)",
)


def test_a_fusion_is_what_it_holds(hlo):
  kinds = hlo.kinds(hlo.runs(program(hlo, *ENTRY, others=FUSIONS)))
  assert list(kinds.items())[:2] == [("movement stack", 500), ("product conv", 300)]


def test_operations_without_estimate_are_listed_with_their_sizes(hlo):
  parsed = program(hlo, *ENTRY, others=FUSIONS)
  assert hlo.without_estimate(parsed, hlo.runs(parsed)) == {("scatter", 640): 1, ("kernel", 6): 1}


def test_what_crosses_chips_is_counted_in_bytes(hlo):
  parsed = program(hlo, *ENTRY, others=FUSIONS)
  assert hlo.collectives(parsed, hlo.runs(parsed)) == [("all-reduce", "jit(f)/psum", 1, 65 * 4)]


def test_only_what_lies_in_the_chips_memory_is_traffic(hlo):
  parsed = program(
    hlo,
    "%a = bf16[100]{0} parameter(0)",
    "%near = (bf16[100]{0:S(1)}, bf16[100]{0}, u32[]{:S(2)}) copy-start(%a)",
    "%there = bf16[100]{0:S(1)} copy-done(%near)",
    "%b = bf16[100]{0:S(1)} negate(%there)",
    "ROOT %c = f32[100]{0} convert(%b)",
  )
  assert hlo.traffic(parsed, hlo.runs(parsed)) == 200 + 400


def test_sizes_of_arrays_and_tuples(hlo):
  assert hlo.size("bf16[2,3]{1,0:T(8,128)(2,1)}") == 12
  assert hlo.size("(pred[8]{0}, /*index=1*/f32[], s32[2,2]{1,0})") == 8 + 4 + 16
  assert hlo.size("(f8e4m3fn[16]{0}, token[])") == 16


def test_text_that_is_no_program_is_refused(hlo):
  with pytest.raises(ValueError, match="ENTRY computation, got 'nothing'"):
    hlo.parse("nothing")
