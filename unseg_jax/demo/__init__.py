"""A web page to try segmenters, and to see how the method trains one.

In: a folder of runs. Out: a page served by Gradio (the extra `demo`), which loads nothing from
other hosts. Open `page.py` first: it defines the layout and the events of the three tabs. The
functions of `picture.py`, `direction.py` and `search_history.py` compute their contents.
`limits.py` checks uploads, `runs.py` lists segmenters and runs, `html.py` formats results,
`memory.py` limits the server's memory, and `server.py` serves the page.
"""
