"""What training loops share: schedule, optimiser, moving average, checkpoint. There is no trainer class."""
