"""The error that is addressed to the person who gave the input, and its kinds that are storage's doing."""


class UserError(ValueError):
    """Bad input. The message is one sentence: the value, what was expected, and the fix.

    Jobs print it without a traceback and exit with status 2.
    """


class StorageError(UserError, OSError):
    """S3 did not do what was asked, after all attempts; the same may succeed later."""


class CredentialsError(StorageError, PermissionError):
    """S3 refuses the credentials, whatever is asked with them."""
