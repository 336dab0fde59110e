"""Making one ring of what fell apart (floor 2).

Owns the search for remembered peers: a node without neighbours finds them again, and the two sides
of a healed cut become one ring.  Outside the assumptions of the ring's proof (design section 4).
"""

from __future__ import annotations

from twisted.python.failure import Failure

from ..errors import ChordError
from ..ring.circle import between
from ..wire.link import Link
from ..wire.messages import State
from .core import Core
from .finder import Finder
from .stabilizer import Stabilizer

__all__ = ["Healer"]

#: Rounds of maintenance between two looks through a remembered peer.
_EVERY = 3


class Healer:
    """Looks for the rest of the ring through peers that the node remembers."""

    def __init__(self, core: Core, finder: Finder, stabilizer: Stabilizer) -> None:
        self._core = core
        self._finder = finder
        self._stabilizer = stabilizer
        self._round = 0
        self._found: Link | None = None  # dialled, and not looked through yet

    async def round(self) -> bool:
        """One look, now and then; True if the pointers changed."""
        self._round += 1
        core = self._core
        pointers = core.pointers
        link, self._found = self._found, None
        if link is None:
            hurry = pointers is None or pointers.alone
            if self._round % _EVERY and not hurry:
                return False
            link = self._somebody()
        if link is None or link.hello.leeching or not core.same_ring(link.hello):
            return False
        return await self.merge(link)

    async def reconnect(self) -> None:
        """A node that keeps nothing has few connections to the ring: try a remembered peer.

        Whoever is connected, member or not, may know newer members.
        """
        core = self._core
        if not any(core.ring_links()):
            for link in core.links:
                await self._finder.fetch_directory(link.peer)
        self._somebody()

    def try_again(self) -> None:
        """A member that could not be reached may be back: a reader would not notice."""
        core = self._core
        failed = [peer for peer in core.directory.members() if core.links.failed_lately(peer)]
        if failed:
            address = core.rng.choice(failed).address
            core.links.dial(*address).addErrback(self._not_connected)

    def _somebody(self) -> Link | None:
        """A connection to a remembered peer, or None: then one is dialled whose time has come.

        Nobody waits for that: it takes seconds if the peer is frozen or cut off.
        """
        core = self._core
        now = core.clock.seconds()
        linked = {link.peer.address: link for link in core.links}
        due = [
            address
            for address, remembered in core.remembered.items()
            if address in linked or remembered.next_try <= now
        ]
        if not due:
            return None
        lost = [address for address in due if address not in linked]
        address = core.rng.choice(lost or due)
        remembered = core.remembered[address]
        if address in linked:
            remembered.pause = 0.0
            return linked[address]
        settings = core.settings
        remembered.pause = min(
            max(2 * remembered.pause, settings.redial_min), settings.redial_max
        )  # fmt: skip
        remembered.next_try = now + core.jittered(remembered.pause)
        core.links.dial(*address).addCallbacks(self._connected, self._not_connected)
        return None

    def _connected(self, link: Link) -> None:
        remembered = self._core.remembered.get(link.peer.address)
        if remembered is not None:
            remembered.pause = 0.0
        self._found = link
        self._core.joined_changed()

    def _not_connected(self, failure: Failure) -> None:
        failure.trap(ChordError, ConnectionError)
        self._core.debug("{error}", error=failure.getErrorMessage())

    async def merge(self, link: Link) -> bool:
        """Look my place up through this peer; take what is nearer than my successor."""
        core = self._core
        pointers = core.pointers
        if pointers is None:
            return False
        here = pointers.me.id
        after = (here + 1) % (1 << core.settings.k)
        try:
            found = await self._finder.find_successor(after, through=link.peer)
        except ChordError as error:
            core.debug("{error}", error=str(error))
            return False
        owner = found.owner
        pointers = core.pointers
        if owner is None or pointers is None or owner.instance == core.instance:
            return False
        successor = pointers.successor
        if successor is not None and not between(here, owner.id, successor.id):
            return False
        if owner.id == here:
            return False
        with self._stabilizer.step() as token:
            if token is None:
                return False
            state = await self._stabilizer.query(owner)
            pointers = core.pointers
            if pointers is None or not core.steps.is_current(token) or not isinstance(state, State):
                return False
            core.pointers = core.rules.merged(pointers, owner, state.successors)
        core.log.info("Found {peer} again.", peer=owner)
        core.chronicle.note("found", f"{owner} was found again")
        return True
