"""What a run leaves on disk, one idea a file.

`stage_records.py`: which settings made a stage's result, and whether it is complete.
`checkpoints.py`: the training's states, by orbax. `generator_files.py`: a converted generator or a
segmenter as one `safetensors` file.
"""
