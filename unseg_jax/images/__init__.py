"""Pictures on the host, as NumPy arrays.

`reading.py` finds picture files and reads them whatever their format: `conversion.py` makes 8-bit
RGB of them, by `colours.py` in sRGB, and `masks.py` finds the scale of masks. `writing.py` encodes
arrays and lays them out, `drawing.py` shows what a segmenter says of a picture.
"""
