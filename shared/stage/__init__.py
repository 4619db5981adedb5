"""The contract of a stage: declaration, command line, runner, version."""
