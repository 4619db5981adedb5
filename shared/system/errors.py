"""Errors that a user can act on."""


class UserError(Exception):
    """A problem that the user can solve: the message names the file or field and the remedy.

    The command line prints the message alone, without a traceback, and exits with 1.
    """


class UsageError(UserError):
    """A file that was given is not what the command reads at all. The exit code is 2, as for wrong arguments."""


class ArtifactError(UserError):
    """A folder that is not the artifact it should be: missing, incomplete, changed, or of another kind."""


class ImageError(UserError):
    """An image that cannot be read. Ingest lists it as a reject and goes on."""
