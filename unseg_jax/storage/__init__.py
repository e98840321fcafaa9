"""Files and folders behind paths and URLs: local disks, buckets, downloads and the cache.

`whole_files.py` writes files atomically. `places.py` keeps a local copy of a bucket's folder;
`file_trees.py` reads and writes single files without a copy. Both use `stores.py`, which retries
after transient errors. `locks.py` reserves a folder for one run. `download.py` fetches published
files, `cache.py` manages the folder that keeps them, and `temporary_names.py` names unfinished
files.
"""
