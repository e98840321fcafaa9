"""The advice in messages can be followed: flags, settings, modules and extras exist."""

import ast
import importlib.util
import re

import pytest
from packaging.requirements import Requirement
from whole_runs import ROOT

from unseg_jax import config_files, default_config, stages
from unseg_jax.adaptation import adapt
from unseg_jax.direction import search
from unseg_jax.errors import UserError
from unseg_jax.segmentation import step
from unseg_jax.synthesis import generate

SOURCES = [
  path
  for folder in ("unseg_jax", "checkpoints_convert")
  for path in sorted((ROOT / folder).rglob("*.py"))
]
SETTING = re.compile(r"config\.([a-z_]+(?:\.[a-z_]+)*)(?!\w|\()")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z_]*)")
PIP = re.compile(r"pip install ((?:--[a-z-]+ )*)(.+)")
FILES = ("json", "py")  # `config.json` is a file.


def messages(path):
  """Returns the strings of a file that are raised or logged, without docstrings and comments."""
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.Raise) and node.exc is not None:
      for text in texts(node.exc):
        yield node.lineno, text


def texts(node):
  """Returns the string literals of a node; values of f-strings become an ellipsis."""
  if isinstance(node, ast.JoinedStr):
    yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
  elif isinstance(node, ast.Constant):
    if isinstance(node.value, str):
      yield node.value
  else:
    for child in ast.iter_child_nodes(node):
      yield from texts(child)


MESSAGES = [(path, line, text) for path in SOURCES for line, text in messages(path)]


def known_flags():
  defined = re.compile(r"DEFINE_\w+\(\s*\"(\w+)\"")
  return {name for path in SOURCES for name in defined.findall(path.read_text())} | {"help"}


def exists(setting):
  value = default_config.get_config()
  for name in setting.split("."):
    if name not in value:
      return False
    value = value[name]
    if setting.startswith("generator_options"):
      return True
  return True


def test_there_are_messages_to_look_at():
  assert len(MESSAGES) > 200
  for pattern, least in ((SETTING, 30), (FLAG, 25), (PIP, 4)):
    assert sum(bool(pattern.search(text)) for _, _, text in MESSAGES) >= least, pattern


def test_every_setting_that_a_message_names_exists():
  unknown = [
    (f"{path.name}:{line}", setting)
    for path, line, text in MESSAGES
    for setting in SETTING.findall(text)
    if setting not in FILES and not exists(setting)
  ]
  assert not unknown


def test_every_flag_that_a_message_names_exists():
  known, unknown = known_flags(), []
  for path, line, text in MESSAGES:
    text = PIP.sub("", text)
    unknown += [(f"{path.name}:{line}", name) for name in FLAG.findall(text) if name not in known]
  assert not unknown


def test_every_command_that_a_message_names_exists():
  for _, _, text in MESSAGES:
    for name in re.findall(r"python -m ([\w.]+\w)", text):
      assert importlib.util.find_spec(name), text


def test_what_a_message_installs_is_what_this_package_asks_for():
  source = (ROOT / "setup.py").read_text()
  extras = set(re.findall(r'^    "(\w+)": ', source, re.MULTILINE))
  assert {"demo", "export", "convert", "benchmarks"} <= extras
  for _, _, text in MESSAGES:
    if found := PIP.search(text):
      quoted = re.search(r"""['"]([^'"]+)['"]""", found[2])
      for word in [quoted[1]] if quoted else found[2].split():
        requirement = Requirement(word)
        if requirement.name == "unseg-jax":
          assert requirement.extras <= extras, text
        else:
          assert requirement.name in source, text


def refusal(check, *arguments):
  with pytest.raises(UserError) as caught:
    check(*arguments)
  return str(caught.value)


CHECKS = {
  "search": lambda config: search.check_config(config.search),
  "generate": lambda config: generate.check_config(config.generate, config.search.directions),
  "train": lambda config: step.check_config(config.train),
  "adapt": lambda config: adapt.check_config(config.adapt),
}


@pytest.mark.parametrize(
  ("setting", "wrong"),
  [
    ("search.dtype", "float8"),
    ("search.directions", 3),
    ("search.restarts", 0),
    ("generate.dtype", "float8"),
    ("generate.rule", "darkness"),
    ("generate.num_images.validation", 0),
    ("train.dtype", "float8"),
    ("train.schedule", "linear"),
    ("train.copy_paste.kinds", ("shiny",)),
    ("adapt.refine", "sharper"),
  ],
)
def test_every_value_that_is_expected_is_taken(setting, wrong):
  section, check = setting.partition(".")[0], CHECKS[setting.partition(".")[0]]
  message = refusal(check, changed(setting, wrong))
  offered = re.search(r"(?:expected|use)(?: at least| some of| one of)? (.+)", message)[1]
  values = re.findall(r"[a-z]+\w*|\d+", re.sub(r"\(.*?\)", "", offered).replace(" or ", " "))
  assert values, message
  for value in values:
    kind = type(wrong)
    CHECKS[section](changed(setting, (value,) if kind is tuple else kind(value)))


def changed(setting, value):
  config = default_config.get_config()
  folder, _, name = setting.rpartition(".")
  section = config
  for each in folder.split("."):
    section = section[each]
  section[name] = value
  return config


@pytest.mark.parametrize(
  ("section", "changes"),
  [
    ("generate", {"agreement": 0.5}),
    ("generate", {"shard_candidates": 100, "chunk": 64}),
  ],
)
def test_a_setting_that_is_advised_mends_it(section, changes):
  config = default_config.get_config()
  config[section].update(changes)
  message = refusal(CHECKS[section], config)
  if found := re.search(r"set config\.(\w+)\.(\w+)=(\d+)", message):
    config[found[1]][found[2]] = int(found[3])
  else:
    name, factor = re.search(
      r"config\.generate\.(\w+)=\d+ must be a multiple of .*=(\d+)", message
    ).groups()
    config.generate[name] = 3 * int(factor)
  CHECKS[section](config)


def test_the_setting_that_was_meant_is_taken():
  config = default_config.get_config()
  message = refusal(config_files.check_overrides, config, ["--config.search.stepz=5"])
  meant = re.search(r'Did you mean "(\w+)"', message)[1]
  config_files.check_overrides(config, [f"--config.search.{meant}=5"])


@pytest.mark.parametrize(
  ("path", "pattern"),
  [
    ("dcgan_faces.py:blue", r"write --config=(\S+)"),
    ("dcgan_fases.py", r"such as (\S+)"),
    ("biggan.py:77", r"expected one of (\d+)"),
  ],
)
def test_the_config_that_is_advised_can_be_loaded(path, pattern):
  path = str(ROOT / "configs" / path)
  with pytest.raises((UserError, FileNotFoundError)) as caught:
    config_files.load(path)
  advised = re.search(pattern, str(caught.value))[1]
  config = config_files.load(
    advised if advised.endswith(".py") else f"{path.partition(':')[0]}:{advised}"
  )
  assert config.name


@pytest.mark.parametrize("name", default_config._TUPLES)
def test_the_form_of_a_tuple_that_is_advised_is_taken(name):
  message = refusal(default_config.check_tuples, changed(name, ((),)))
  advised = ast.literal_eval(re.search(r"a tuple such as (.+); a tuple of one", message)[1])
  default_config.check_tuples(changed(name, advised))


def test_the_stages_that_are_advised_can_be_chosen():
  config = default_config.get_config()
  config.adapt.images = "photos"
  message = refusal(stages.select, ["learn"], config)
  advised = re.search(r"expected some of (\S+)", message)[1].split(",")
  assert stages.select(advised, config) == advised
