"""Errors that users can fix. Commands show them as one line, and all others with a traceback.

Each also derives from a built-in exception, so that programs can catch `ValueError` and the like.
"""


class UserError(Exception):
  """An error that the user can fix. Its message names the value, what was expected and a remedy."""


class InvalidValue(UserError, ValueError):
  """A setting, an argument or the contents of a file are invalid."""


class MissingPackage(UserError, ImportError):
  """A required package cannot be imported."""


class NotFinite(UserError, FloatingPointError):
  """A computation returned NaN or infinity."""
