"""A page to try a segmenter on, and to see how the method finds one.

In: a folder of runs. Out: a page in the browser, by Gradio (the extra `demo`), that asks no other
host for anything. Open `page.py` first: it lays out the three tabs and says what follows on what;
what they show comes from the pure functions of `picture.py`, `direction.py` and
`search_history.py`. `limits.py` judges what is uploaded, `runs.py` lists the choices, `html.py`
turns results into HTML, `memory.py` keeps the server small, and `server.py` serves the page.
"""
