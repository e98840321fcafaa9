"""Files of a run.

`stage_records.py` records the settings of a stage's result and whether it is complete.
`checkpoints.py` saves training states with orbax. `generator_files.py` stores a converted generator
or a segmenter in one `safetensors` file. `renamed_settings.py` translates former setting names.
"""
