"""The tree of errors that every floor raises.

Each error says what happened, where (a file, line or field) and what to do about it. `status` is what an HTTP
caller gets, `exit_code` what a shell gets. Foreign exceptions are turned into these where they enter, with the
foreign one as the cause; their text is for logs and never for a remote caller.
"""

from __future__ import annotations

from typing import ClassVar


class UpwellError(Exception):
    """The root: anything upwell raises on purpose."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.hint}" if self.hint else head


class InvalidInput(UpwellError):
    """Something the caller wrote is wrong and nothing was applied."""

    status = 400
    exit_code = 2


class InvalidManifest(InvalidInput):
    """A manifest that does not describe a valid object; `where` is `file:line: field`."""


class InvalidSettings(InvalidInput):
    """A flag, environment variable or ConfigMap key with an unusable value."""


class InvalidFunction(InvalidInput):
    """A source or a callable that cannot be served as a function."""


class InvalidEvent(InvalidInput):
    """A request that should carry a CloudEvent and does not."""


class InvalidResult(UpwellError):
    """A function ended in a way that cannot become a response; the caller gets a plain 500."""


class NotFound(UpwellError):
    """The named object does not exist."""

    status = 404


class Conflict(UpwellError):
    """The object changed since it was read, or its name is taken."""

    status = 409


class Unavailable(UpwellError):
    """The platform cannot do this now, but may later."""

    status = 503


class AddressInUse(UpwellError):
    """A port or socket path that another process holds."""
