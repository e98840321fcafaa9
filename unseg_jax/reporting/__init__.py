"""Stage 5: what people look at.

In: a run's workdir, or several. Out: one self-contained HTML page, and tables.
Open `contents.py` first: it reads a workdir into plain data, which `report.py` turns into the page
of a run and `comparison.py` into that of several; the HTML and CSS are in `templates/`.
"""
