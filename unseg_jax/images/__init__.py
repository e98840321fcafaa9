"""Pictures on the host, as NumPy arrays.

`reading.py` finds picture files and reads them whatever their format, `writing.py` encodes arrays
and lays them out, `drawing.py` shows what a segmenter says of a picture.
"""
