"""How long the requests to one peer take, and how long to wait for the next one (floor 1; pure).

Jacobson's estimator, as in RFC 6298, learns from answers that come in time.  A peer that is alive
and slow (its disk is busy) would never be heard in time; so its late answers count, too.
"""

from __future__ import annotations

from ..settings import Settings

__all__ = ["RoundTrips"]

#: Requests that were given up, and whose answer would still be taken note of.
_MOST_MISSED = 64
#: Seconds for which a late answer makes patient, and how many times as long as it took.
_PATIENT_FOR, _PATIENT_TIMES = 10.0, 2.0


class RoundTrips:
    """What is known of one peer's answers.

    :ivar smoothed: the smoothed round-trip time in seconds, None before the first answer.
    """

    __slots__ = ("_high", "_low", "_missed", "_patience", "_patient_until", "_variance", "smoothed")

    def __init__(self, settings: Settings) -> None:
        self.smoothed: float | None = None
        self._variance = 0.0
        self._low, self._high = settings.request_timeout_min, settings.request_timeout_max
        self._missed: dict[int, float] = {}  # request -> when it was sent
        self._patience = 0.0
        self._patient_until = 0.0

    def timeout(self, now: float) -> float:
        """Seconds that a request may take: srtt + 4 rttvar within the settings' bounds."""
        if self.smoothed is None:
            return self._high
        wait = self.smoothed + 4 * self._variance
        if now < self._patient_until:
            wait = max(wait, self._patience)
        if wait < self._low:
            return self._low
        return wait if wait < self._high else self._high

    def measure(self, sample: float) -> None:
        """An answer came after so many seconds."""
        if self.smoothed is None:
            self.smoothed, self._variance = sample, sample / 2
        else:
            self._variance += (abs(self.smoothed - sample) - self._variance) / 4
            self.smoothed += (sample - self.smoothed) / 8

    def missed(self, number: int, sent_at: float) -> None:
        """A request was given up."""
        if len(self._missed) >= _MOST_MISSED:
            del self._missed[next(iter(self._missed))]
        self._missed[number] = sent_at

    def late(self, number: int, now: float) -> None:
        """An answer came that nobody waits for any more."""
        sent_at = self._missed.pop(number, None)
        if sent_at is not None:
            self._patience = _PATIENT_TIMES * (now - sent_at)
            self._patient_until = now + _PATIENT_FOR
