"""The failure detector, and the deadlines of requests (floor 1).

Owns the two calls that look at all connections of a node from time to time.  Draws no conclusion
about nodes: it ends connections, and the node hears of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import PeerUnreachable
from ..settings import Settings
from .link import Link
from .messages import Ping

if TYPE_CHECKING:
    from .handshake import Connection

__all__ = ["Watch"]


class Watch:
    """Fails the requests that are late, pings the silent and gives up the dead.

    :param connections: tells all connections of the node.
    """

    #: Seconds between two looks at the deadlines of requests, while there are any.
    sweep_interval = 0.05
    #: Seconds between two looks for silent peers.
    watch_interval = 0.5
    #: Seconds of silence after which a connection that was replaced is closed.
    close_replaced_after = 2.0

    def __init__(
        self,
        clock: IReactorTime,
        settings: Settings,
        connections: Callable[[], Iterable[Connection]],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._connections = connections
        self._sweeping: IDelayedCall | None = None
        self._watching: IDelayedCall | None = None
        self._looked_at = 0.0
        self._stopped = False

    def start(self) -> None:
        """Look for silent peers from now on."""
        if not self._stopped:
            self._look_again()

    def stop(self) -> None:
        """Look no more; leaves no delayed call."""
        self._stopped = True
        for call in (self._sweeping, self._watching):
            if call is not None and call.active():
                call.cancel()

    def expect(self) -> None:
        """A request was sent: look at the deadlines until none is left."""
        if self._sweeping is None and not self._stopped:
            at = self._clock.seconds() + self.sweep_interval
            self._sweeping = self._clock.callLater(self.sweep_interval, self._sweep, at)

    def _sweep(self, at: float | None = None) -> None:
        """Look at the deadlines.

        :param at: when that should be; None: whenever it is.
        """
        self._sweeping = None
        now = self._clock.seconds()
        if at is not None and now - at > self.sweep_interval:
            # This node was busy: it reads what came meanwhile before it calls anybody silent.
            self._sweeping = self._clock.callLater(self.sweep_interval / 10, self._sweep)
            return
        busy = False
        for connection in self._connections():
            link = connection.link
            if link is not None and not link.idle:
                link.sweep(now)
                busy = busy or not link.idle
        if busy:
            self.expect()

    def _look_again(self) -> None:
        self._looked_at = self._clock.seconds()
        self._watching = self._clock.callLater(self.watch_interval, self._look)

    def _look(self) -> None:
        now = self._clock.seconds()
        away = max(0.0, now - self._looked_at - 2 * self.watch_interval)
        self._look_again()
        for connection in self._connections():
            if connection.link is not None:
                connection.link.heard_at += away  # this node was: the peers are not to blame
                self._examine(connection, connection.link, now - connection.link.heard_at)

    def _examine(self, connection: Connection, link: Link, silent: float) -> None:
        settings = self._settings
        if silent >= settings.dead_after:
            connection.give_up(PeerUnreachable(f"{link.peer} was silent for {silent:.1f} s"))
        elif link.retired and link.idle and not link.unanswered:
            if silent > self.close_replaced_after:
                link.close()
        elif silent >= settings.ping_after and not link.pinging:
            self._ping(link)

    def _ping(self, link: Link) -> None:
        link.pinging = True

        def ended(_: Any) -> None:
            link.pinging = False

        link.ask(Ping(), self._settings.request_timeout_max).addBoth(ended)
        self.expect()
