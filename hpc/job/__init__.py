"""Code that runs inside a job: pipeline, elements, stop, checkpoints, requeue, watchdog."""
