"""The stage `cluster`."""
