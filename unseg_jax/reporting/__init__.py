"""Stage 5: pages and tables that show the results of runs.

In: the workdir of a run, or several workdirs. Out: one self-contained HTML page, and tables.
Open `contents.py` first: it reads a workdir into plain data. `report.py` renders the page of one
run, `comparison.py` the page of several. `under_way.py` describes a run that is not finished.
HTML and CSS are in `templates/`.
"""
