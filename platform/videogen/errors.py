"""User-facing errors, whose message is one sentence for the person who can fix the problem."""


class UserError(ValueError):
    """Invalid input. The message is one sentence with the value, what was expected, and the fix.

    Jobs print it without a traceback and exit with status 2.
    """


class StorageError(UserError, OSError):
    """S3 request that failed at every attempt; a later run may succeed."""


class CredentialsError(StorageError, PermissionError):
    """S3 request that was refused because of the credentials."""
