"""What training loops have in common: seeds, schedule, optimiser, averaging, prefetching, checkpoints, processes."""
