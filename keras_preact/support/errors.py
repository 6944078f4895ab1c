"""Errors that end a program with an exit code of their own."""


class RunError(RuntimeError):
    """Ends the program with its message and `exit_code`; nobody's flags were wrong."""

    exit_code = 1


class SaveError(RunError):
    """What has been computed could not be written; the run can be resumed."""

    exit_code = 74  # EX_IOERR of sysexits.h
