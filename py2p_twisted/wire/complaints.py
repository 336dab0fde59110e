"""What is logged of peers that do what they should not (floor 1).

Everything is counted and little is logged: whoever can make a node write a line with every message
fills its disk.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import ChordError

__all__ = ["Complaints", "printable"]

#: How often a minute what a host does wrong is logged.
_OF_HOST = 5
#: And of all hosts together.
_OF_ALL = 50
#: Hosts that are remembered.
_MOST_HOSTS = 1024


def printable(text: str) -> str:
    """A peer's words for the log: nothing in them steers a terminal or begins a new line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


class Complaints:
    """Counts what hosts do wrong, and logs it a few times a minute.

    :ivar count: of all that was done wrong, whether logged or not.
    """

    def __init__(self, clock: IReactorTime, log: Logger) -> None:
        self.count = 0
        self._clock = clock
        self._log = log
        self._of_host: dict[str, tuple[float, int]] = {}
        self._of_all: tuple[float, int] | None = None

    def refused(self, host: str, error: ChordError) -> None:
        """A peer was refused: see :meth:`offended`."""
        if self.offended(host):
            self._log.info("A peer was refused: {error}", error=printable(str(error)))

    def offended(self, host: str) -> bool:
        """Count something that a host did wrong; may it be logged?

        :param host: where the connection comes from, not what the peer says of itself.
        """
        self.count += 1
        if len(self._of_host) >= _MOST_HOSTS:
            self._of_host.clear()
        of_host = self._of_host[host] = self._one_more(self._of_host.get(host))
        if of_host[1] > _OF_HOST + 1:
            return False
        of_all = self._of_all = self._one_more(self._of_all)
        if of_all[1] > _OF_ALL:
            if of_all[1] == _OF_ALL + 1:
                self._log.info("Many hosts are refused; no more is said of them for a minute.")
            return False
        if of_host[1] > _OF_HOST:
            self._log.info("{host} is refused again and again; no more is said.", host=host)
            return False
        return True

    def _one_more(self, since: tuple[float, int] | None) -> tuple[float, int]:
        """When the present minute began, and how many complaints there were in it."""
        now = self._clock.seconds()
        return (now, 1) if since is None or now - since[0] >= 60 else (since[0], since[1] + 1)
