"""The steps of running a stage: places, inputs, worker processes, checkpoints, outputs."""
