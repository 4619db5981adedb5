"""Networks and their configs, and the files of a Model artifact."""
