"""PNG files that Pillow cannot write: of any depth, with a transparent colour."""

import struct
import zlib


def chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth, colour_type, width, row, transparent=()):
  """Returns a file with one row.

  Args:
    depth: bits of each channel.
    colour_type: 0 for grey, 2 for RGB.
    width: in pixels.
    row: the pixels, packed.
    transparent: the channels of the transparent colour; empty: there is none.
  """
  header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
  key = struct.pack(f">{len(transparent)}H", *transparent)
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    (
      chunk(b"IHDR", header),
      chunk(b"tRNS", key) if key else b"",
      chunk(b"IDAT", zlib.compress(b"\0" + row)),
      chunk(b"IEND", b""),
    )
  )
