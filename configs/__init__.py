"""Config files, one per experiment. `--config=configs/NAME.py` selects one.

Each file changes some settings of `unseg_jax/default_config.py`. The installed package contains
these files as `unseg_jax.configs`.
"""
