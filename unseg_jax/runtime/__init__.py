"""Infrastructure of every stage, independent of the method.

Open `parallel.py` first: it alone handles devices and processes. `barrier.py` synchronises
processes, `failure.py` ends all of them when one fails, `process_flags.py` defines their flags, and
`preemption.py` handles termination signals. `prefetch.py` works ahead on other threads,
`workers.py` starts worker processes, and `shared_arrays.py` exchanges arrays with them.
`huge_pages.py` makes memory cheaper, `progress.py` draws progress bars, `commands.py` starts
commands and reports their errors, `settings.py` checks settings, and `tracking.py` writes events
for TensorBoard through `tensorboard_writer.py`. `host_tensorflow.py` imports TensorFlow for the
few tasks that need it.
"""
