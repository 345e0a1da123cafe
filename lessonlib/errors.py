"""The one kind of error a user of the course is meant to read."""


class CourseError(ValueError):
    """Bad input, said in one line that names the value and the remedy.

    The `lesson` command prints it without a traceback and exits with status 2.
    """
