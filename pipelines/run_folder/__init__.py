"""The folder of a run: its record, and safe access to its files."""
