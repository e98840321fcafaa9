"""Colour profiles, written byte by byte, and the numbers of colours in their spaces."""

import struct

import numpy as np

# Chromaticities of the primaries and of white, adapted to ICC's D50 by Bradford.
PRIMARIES = {
  "p3": ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)),
  "adobe": ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)),
}
GAMMA = {"p3": None, "adobe": 563 / 256}
SRGB = np.array(
  [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]]
)


def profile(space, tags):
  """Returns a version 4 profile in the layout of ICC.1:2010."""
  data, table = b"", struct.pack(">I", len(tags))
  for name, contents in tags.items():
    table += struct.pack(">4sII", name.encode(), 132 + 12 * len(tags) + len(data), len(contents))
    data += contents + bytes(-len(contents) % 4)
  white = struct.pack(">3i", *fixed((0.9642, 1, 0.8249)))
  header = struct.pack(
    ">I4sI4s4s4s12s4s4sIIIQI12s48s",
    *(132 + 12 * len(tags) + len(data), b"", 0x04200000, b"mntr", space.encode(), b"XYZ "),
    *(bytes(12), b"acsp", b"", 0, 0, 0, 0, 0, white, b""),
  )
  assert len(header) == 128
  return header + table + data


def fixed(values):
  return [round(value * 65536) for value in values]


def xyz(values):
  return struct.pack(">4sI3i", b"XYZ ", 0, *fixed(values))


def curve(gamma):
  """Returns the curve of a gamma; None: of sRGB."""
  kind, numbers = (
    (0, (gamma,)) if gamma else (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
  )
  return struct.pack(f">4sIHH{len(numbers)}i", b"para", 0, kind, 0, *fixed(numbers))


def rgb_profile(name):
  white, primaries = xyz((0.9642, 1, 0.8249)), PRIMARIES[name]
  tags = {f"{c}XYZ": xyz(values) for c, values in zip("rgb", primaries, strict=True)}
  return profile("RGB ", {"wtpt": white, **tags, **{f"{c}TRC": curve(GAMMA[name]) for c in "rgb"}})


def grey_profile(gamma):
  return profile("GRAY", {"wtpt": xyz((0.9642, 1, 0.8249)), "kTRC": curve(gamma)})


def linear(values, gamma=None):
  values = np.asarray(values) / 255
  if gamma:
    return values**gamma
  return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def encoded(light, gamma=None):
  light = np.clip(light, 0, 1)
  if gamma:
    return 255 * light ** (1 / gamma)
  return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def in_profile(bars, name):
  """Converts sRGB colours to the numbers of a profile's space."""
  matrix = np.linalg.inv(np.transpose(PRIMARIES[name])) @ SRGB
  return np.rint(encoded(linear(bars) @ matrix.T, GAMMA[name])).astype(np.uint8)
