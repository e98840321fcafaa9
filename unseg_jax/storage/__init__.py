"""Whatever a path or a URL may name: folders, buckets, downloads, the cache.

`whole_files.py` writes files atomically. `places.py` keeps a local copy of a
bucket's folder, `file_trees.py` reads and writes many files there one by one; both stand on
`stores.py`, which waits out a store's faults. `locks.py` keeps a folder for
one run. `download.py` fetches published files, `cache.py`
says where they are kept, and `temporary_names.py` what a file is called until it is complete.
"""
