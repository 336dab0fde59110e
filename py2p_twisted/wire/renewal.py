"""A TLS folder that changes on disk: its certificate is taken up, or said why not (floor 1).

Also tells in time that a certificate is about to expire.  The work is bounded: the three files are
looked at when a connection begins, at most once in :data:`LOOK_EVERY` seconds, and once a minute.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from .certificates import (
    TLS_FILES,
    Credentials,
    first_end,
    misnamed,
    names,
    read_folder,
    show_moment,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from .tls import Security

__all__ = ["CHECK_EVERY", "LOOK_EVERY", "WARN_BEFORE", "Renewal"]

#: Seconds between two looks at the files, however many connections begin.
LOOK_EVERY = 5.0

#: Seconds between two looks without any connection.
CHECK_EVERY = 60.0

#: From when on before its end a certificate is warned of, and how often in the log.
WARN_BEFORE = timedelta(days=14)
WARN_EVERY = timedelta(days=1)


class Renewal:
    """Keeps a :class:`~.tls.Security` as its folder is.

    What is worse than the certificate in use is not taken up, and logged once: a folder that is
    half-written, one whose time is over or still to come, one that does not name this node.

    :param clock: IReactorTime; only differences of it are used.
    :param host: what this node announces, if others check that; else an empty text.
    :param now: the calendar's time, in UTC.
    """

    log = Logger()

    def __init__(
        self,
        clock: Any,
        security: Security,
        folder: str,
        host: Callable[[], str],
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._clock = clock
        self._security = security
        self._folder = os.path.abspath(folder)
        self._host = host
        self._now = now
        self._seen: Any = None  # the folder may have changed since it was read
        self._looked_at = clock.seconds()
        self._refused = ""  # why what is on disk is not taken up
        self._warned: tuple[datetime, datetime, bool] | None = None  # when, of which end, if over
        self._timer: IDelayedCall | None = None
        security.before_use = self.look

    # -- life

    def start(self) -> None:
        """Look from now on, and warn if it is time."""
        if self._timer is None:
            self._check()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _check(self) -> None:
        self._timer = self._clock.callLater(CHECK_EVERY, self._check)
        # What was refused is tried again: time may have made it valid, or the other one invalid.
        self._look(again=bool(self._refused))
        self._warn()

    # -- renewing

    def look(self) -> None:
        """Take up what is on disk if it changed; does nothing if it looked just now."""
        if not 0 <= self._clock.seconds() - self._looked_at < LOOK_EVERY:  # clocks are set back
            self._look()

    def _look(self, *, again: bool = False) -> None:
        self._looked_at = self._clock.seconds()
        state = [_stamp(os.path.join(self._folder, name)) for name in TLS_FILES]
        # Looked at before reading: what is written meanwhile is a change.
        if state == self._seen and not again:
            return
        self._seen = state
        try:
            new = read_folder(self._folder)
            same = new[1:] == self._security.credentials[1:]
            if not same and (worse := self._worse(new)):
                raise ValueError(worse)
            self._security.renew(*new)
        except ValueError as error:
            self._keep(str(error))
            return
        self._refused = ""
        if same:
            return
        self.log.info(
            "Took up the certificate in {folder}: it names {names} and is valid until {end}.",
            folder=self._folder,
            names=names(new[1][0]),
            end=show_moment(self._security.expiry[0]),
        )

    def _worse(self, new: Credentials) -> str:
        """Why a usable certificate would be given up for the new one, empty if it would not."""
        _, chain, authorities = new
        old, now, host = self._security, self._now(), self._host()
        start, (end, what) = chain[0].not_valid_before_utc, first_end(chain, authorities)
        if not old.certificate.not_valid_before_utc <= now < old.expiry[0]:
            return ""
        if start > now:
            return f"its cert.pem is valid only from {show_moment(start)} on"
        if end <= now:
            return f"{what} expired on {show_moment(end)}"
        if host and misnamed(old.certificate, host) is None:
            wrong = misnamed(chain[0], host)
            return f"its cert.pem {wrong}" if wrong else ""
        return ""

    def _keep(self, why: str) -> None:
        if why != self._refused:
            self._refused = why
            self.log.warn(
                "{folder} changed, but is not taken up; the certificate before stays in use: {why}",
                folder=self._folder,
                why=why,
            )

    # -- expiring

    @property
    def expires(self) -> datetime:
        """When the certificate in use, or what it needs, ends to be valid."""
        return self._security.expiry[0]

    def warning(self) -> str:
        """That the certificate expires soon, or is expired; empty if neither."""
        now, (end, what) = self._now(), self._security.expiry
        if now >= end:
            return f"{what} expired on {show_moment(end)}"
        if now >= end - WARN_BEFORE:
            return f"{what} expires on {show_moment(end)}, in {_left(end - now)}"
        return ""

    def _warn(self) -> None:
        text, now, end = self.warning(), self._now(), self.expires
        if not text:
            return
        over = now >= end
        if self._warned is not None:
            when, of, was_over = self._warned
            if (of, was_over) == (end, over) and timedelta(0) <= now - when < WARN_EVERY:
                return
        self._warned = (now, end, over)
        self.log.warn("{text}: renew the folder {folder}.", text=text, folder=self._folder)


def _stamp(file: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size)


def _left(time: timedelta) -> str:
    """A duration of less than WARN_BEFORE, for people."""
    hours = time // timedelta(hours=1)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} hours" if hours > 1 else "less than two hours"
