"""Where the border of a mask lies, and what looks like a border and is none."""
