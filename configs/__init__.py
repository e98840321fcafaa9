"""One experiment a file: generator, data set and schedule; `--config=configs/NAME.py` picks one.

A file changes what it must of `unseg_jax/default_config.py`. An installed package carries these as
`unseg_jax.configs`.
"""
