"""Parsers of the benchmarks' flags."""

import argparse
import sys
from collections.abc import Callable, Collection


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
  """Parses the flags of a script that uses JAX's devices; exits if those are not available."""
  # Imported here: scripts that start no device do not need JAX.
  from unseg_jax.runtime import parallel

  arguments = parser.parse_args()
  try:
    parallel.check_devices()
  except ValueError as error:
    sys.exit(f"error: {error}")
  return arguments


def positive(text: str) -> int:
  """Parses an integer.

  Raises:
    argparse.ArgumentTypeError: it is below 1.
  """
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of at least 1")
  return int(text)


def seconds(text: str) -> float:
  """Parses a positive number of seconds.

  Raises:
    argparse.ArgumentTypeError: it is not a positive number.
  """
  return _number(text, float("inf"), "seconds above 0")


def share(text: str) -> float:
  """Parses a share.

  Raises:
    argparse.ArgumentTypeError: it is not within (0, 1].
  """
  return _number(text, 1.0, "a share above 0, and at most 1")


def _number(text: str, most: float, expected: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value <= most:
    raise argparse.ArgumentTypeError(f"{text!r}: expected {expected}")
  return value


def add_divisor(parser: argparse.ArgumentParser) -> None:
  """Adds the flag `--divisor`, which divides the channels of every layer for a quick trial."""
  parser.add_argument(
    "--divisor",
    type=int,
    choices=(1, 2, 4, 8, 16),
    default=1,
    help="Divisor of all channel counts.",
  )


def names(known: Collection[str]) -> Callable[[str], list[str]]:
  """Returns a parser of comma-separated names, which sorts them in the order of `known`.

  The parser raises an argparse.ArgumentTypeError for an unknown name.
  """

  def split(text):
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in known]:
      raise argparse.ArgumentTypeError(f"{unknown[0]!r}: expected some of {','.join(known)}")
    return [name for name in known if name in chosen]

  return split
