"""Errors, logs, progress, devices and processes: what every other package builds on."""
