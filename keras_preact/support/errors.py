"""Errors that end a program with an exit code of their own."""


class RunError(RuntimeError):
    """Ends the program with its message and `exit_code`; the flags were right."""

    exit_code = 1


class SaveError(RunError):
    """Results could not be written; the run can be resumed."""

    exit_code = 74  # EX_IOERR of sysexits.h
