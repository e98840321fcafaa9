"""What every stage runs on, and what knows nothing of the method.

Open `parallel.py` first: it alone knows about devices and processes. Processes wait for each other
in `barrier.py`, end together by `failure.py` when one of them fails, get their flags from
`process_flags.py`, and leave in good order by `preemption.py`. `prefetch.py` works on other
threads, `progress.py` draws bars, and `tracking.py` writes events for TensorBoard, by
`tensorboard_writer.py`. `host_tensorflow.py` imports TensorFlow for the few tasks that need it.
"""
