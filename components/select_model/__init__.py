"""The stage `gate`."""
