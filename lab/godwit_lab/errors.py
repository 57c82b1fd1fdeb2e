"""Errors an operator sees. Each carries one message that says what to do, and the exit code."""

# Exit codes of the tool itself. A script's own code is passed through unchanged, so the tool keeps
# to values that shells and test runners already understand.
EXIT_FAILED = 1
EXIT_SETUP = 2
EXIT_TIMEOUT = 124
EXIT_HOST_DIED = 125


class LabError(Exception):
    """Something the operator can act on. Printed as one line, without a traceback."""

    def __init__(self, message: str, code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code = code
