"""Errors that users can mend: commands answer them with one line, and all others with a traceback.

Each is also what Python's own libraries raise in its place, so that a program that uses this
package may catch `ValueError` and the like.
"""


class UserError(Exception):
  """What the user can mend; its message names the value, what was expected and the way out."""


class InvalidValue(UserError, ValueError):
  """A setting, an argument or the contents of a file are not as expected."""


class MissingPackage(UserError, ImportError):
  """A package that is needed for what was asked cannot be imported."""


class NotFinite(UserError, FloatingPointError):
  """A computation gave a value that is not a finite number."""
