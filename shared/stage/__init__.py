"""The contract of a stage: declaration, command line, execution, version."""
