"""Networks that are needed to read a Model artifact, and the files they are kept in."""
