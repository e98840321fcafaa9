"""Images on the host, as NumPy arrays.

`reading.py` finds image files and reads them in any format. It uses `conversion.py` for 8-bit RGB,
`colours.py` for sRGB, and `masks.py` for the scale of mask values. `writing.py` encodes arrays and
arranges them in grids. `drawing.py` visualises a segmenter's prediction for an image.
"""
