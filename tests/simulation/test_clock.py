"""The simulated clock runs every call once, in order, and only of hosts that run."""

from __future__ import annotations

from random import Random

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from .clock import HostClock, SimCall, SimClock, TimeStandsStill


class SimClockTests(SynchronousTestCase):
    """Time moves from call to call."""

    def setUp(self) -> None:
        self.clock = SimClock()
        self.ran: list[object] = []

    def at(self, delay: float, name: object) -> SimCall:
        return self.clock.callLater(delay, self.ran.append, name)

    def test_interfaces(self) -> None:
        """Clock, facade and call provide what Twisted's code expects of them."""
        verifyObject(IReactorTime, self.clock)
        verifyObject(IReactorTime, HostClock(self.clock))
        verifyObject(IDelayedCall, self.at(1, "x"))

    def test_order(self) -> None:
        """Earlier calls run first; of those at the same time, the one that was made first."""
        for delay, name in ((2, "c"), (1, "a"), (2, "d"), (1, "b"), (0, "0")):
            self.at(delay, name)
        while self.clock.step():
            pass
        self.assertEqual(self.ran, ["0", "a", "b", "c", "d"])
        self.assertEqual(self.clock.seconds(), 2)
        self.assertEqual(self.clock.turn, 5)

    def test_step(self) -> None:
        """One step is one call; without calls nothing happens and time stands."""
        self.at(1, "a")
        self.at(1, "b")
        self.assertTrue(self.clock.step())
        self.assertEqual((self.ran, self.clock.seconds()), (["a"], 1))
        self.assertTrue(self.clock.step())
        self.assertFalse(self.clock.step())
        self.assertEqual((self.ran, self.clock.seconds()), (["a", "b"], 1))

    def test_arguments(self) -> None:
        """Positional and keyword arguments reach the function."""
        self.clock.callLater(0, lambda *a, **k: self.ran.append((a, k)), 1, 2, three=3)
        self.clock.step()
        self.assertEqual(self.ran, [((1, 2), {"three": 3})])

    def test_run_until(self) -> None:
        """Runs what is due up to the time, also what such calls add, and then it is that time."""
        self.clock.callLater(1, lambda: self.at(1, "second"))
        self.at(3, "too late")
        self.clock.run_until(2)
        self.assertEqual((self.ran, self.clock.seconds()), (["second"], 2))
        self.clock.run_until(1)
        self.assertEqual(self.clock.seconds(), 2)

    def test_run_while(self) -> None:
        """Stops right after the call that made the predicate false."""
        for number in range(10):
            self.at(number, number)
        self.assertTrue(self.clock.run_while(lambda: 3 not in self.ran, 100))
        self.assertEqual((self.ran[-1], self.clock.seconds()), (3, 3))

    def test_run_while_limit(self) -> None:
        """Gives up after so many seconds, counted from now."""
        self.clock.run_until(10)
        self.at(4, "in time")
        self.at(6, "too late")
        self.assertFalse(self.clock.run_while(lambda: True, 5))
        self.assertEqual((self.ran, self.clock.seconds()), (["in time"], 15))

    def test_looping_call_fires_every_time(self) -> None:
        """Unlike Clock.advance, a long run fires a loop once for each interval."""
        loop = LoopingCall(self.ran.append, "x")
        loop.clock = self.clock
        loop.start(1, now=False)
        self.clock.run_until(5.5)
        self.assertEqual(len(self.ran), 5)

    def test_exception_reaches_the_stepper(self) -> None:
        """What a call raises is not swallowed; the call counts as made."""
        call = self.clock.callLater(1, lambda: 1 // 0)
        self.at(2, "after")
        self.assertRaises(ZeroDivisionError, self.clock.run_until, 5)
        self.assertFalse(call.active())
        self.clock.run_until(5)
        self.assertEqual(self.ran, ["after"])

    def test_cancel(self) -> None:
        """A cancelled call does not run, and cannot be cancelled or moved again."""
        call = self.at(1, "x")
        self.assertTrue(call.active())
        call.cancel()
        self.assertFalse(call.active())
        self.clock.run_until(2)
        self.assertEqual(self.ran, [])
        for again in (call.cancel, lambda: call.reset(1), lambda: call.delay(1)):
            self.assertRaises(AlreadyCancelled, again)

    def test_called(self) -> None:
        """A call that ran cannot be cancelled or moved, not even while it runs."""
        call = self.clock.callLater(1, lambda: self.assertRaises(AlreadyCalled, call.cancel))
        self.clock.run_until(1)
        for late in (call.cancel, lambda: call.reset(1), lambda: call.delay(1)):
            self.assertRaises(AlreadyCalled, late)

    def test_reset(self) -> None:
        """A reset counts from now, to earlier and to later; it goes behind others of that time."""
        late, early = self.at(5, "late"), self.at(1, "early")
        self.at(2, "middle")
        late.reset(0.5)
        early.reset(2)
        self.assertEqual((late.getTime(), early.getTime()), (0.5, 2))
        self.clock.run_until(10)
        self.assertEqual(self.ran, ["late", "middle", "early"])

    def test_delay(self) -> None:
        """A delay counts from when the call was due; never to before now."""
        self.clock.run_until(1)
        later, sooner, now = self.at(1, "later"), self.at(5, "sooner"), self.at(5, "now")
        later.delay(2)
        sooner.delay(-3)
        now.delay(-100)
        self.assertEqual((later.getTime(), sooner.getTime(), now.getTime()), (4, 3, 1))
        self.clock.run_until(10)
        self.assertEqual(self.ran, ["now", "sooner", "later"])

    def test_refuses_bad_delays(self) -> None:
        """No call in the past, at infinity or at no time at all."""
        for delay in (-0.1, float("inf"), float("nan")):
            self.assertRaises(ValueError, self.at, delay, "x")
        call = self.at(1, "x")
        self.assertRaises(ValueError, call.reset, -1)
        self.assertEqual(call.getTime(), 1)

    def test_delayed_calls(self) -> None:
        """Lists what is to come, the next first."""
        b, a, gone = self.at(2, "b"), self.at(1, "a"), self.at(1, "gone")
        gone.cancel()
        b.reset(3)
        self.assertEqual(self.clock.getDelayedCalls(), [a, b])
        self.clock.run_until(1)
        self.assertEqual(self.clock.getDelayedCalls(), [b])

    def test_cancelled_calls_are_let_go(self) -> None:
        """A timer that is moved a thousand times is one entry, not a thousand."""
        call = self.at(1000, "x")
        for _ in range(10_000):
            call.reset(1000)
            self.at(1000, "y").cancel()
        self.assertLess(len(self.clock._heap), 1000)
        self.clock.run_until(2000)
        self.assertEqual(self.ran, ["x"])

    def test_time_stands_still(self) -> None:
        """A circle of calls at one instant is an error, not a run without end; many are fine."""
        self.clock = SimClock(calls_at_one_instant=10)
        for number in range(100):
            self.at(number // 10, number)
        self.clock.run_until(100)
        self.assertEqual(len(self.ran), 100)

        def again() -> None:
            self.clock.callLater(0, again)

        again()
        self.assertRaises(TimeStandsStill, self.clock.run_until, 200)

    def test_against_a_plain_model(self) -> None:
        """Random calls, cancels and moves run exactly as sorting a list says."""
        for seed in range(20):
            rng = Random(seed)
            clock = SimClock()
            ran: list[int] = []
            calls: dict[int, SimCall] = {}
            model: dict[int, tuple[float, int]] = {}
            for number in range(600):
                choice = rng.random()
                victim = rng.choice(sorted(model)) if model else None
                delay = rng.randrange(20)
                if victim is None or choice < 0.5:
                    calls[number] = clock.callLater(delay, ran.append, number)
                    model[number] = (clock.seconds() + delay, number)
                elif choice < 0.7:
                    calls[victim].cancel()
                    del model[victim]
                elif choice < 0.9:
                    calls[victim].reset(delay)
                    model[victim] = (clock.seconds() + delay, number)
                else:
                    until = clock.seconds() + rng.randrange(3)
                    due = sorted((key, n) for n, key in model.items() if key[0] <= until)
                    del ran[:]
                    clock.run_until(until)
                    self.assertEqual(ran, [n for _, n in due], f"seed {seed}")
                    for _, n in due:
                        del model[n]


class HostClockTests(SynchronousTestCase):
    """One host can be stopped while time goes on for the others."""

    def setUp(self) -> None:
        self.clock = SimClock()
        self.one, self.other = HostClock(self.clock), HostClock(self.clock)
        self.ran: list[str] = []

    def test_runs_like_the_clock(self) -> None:
        """Two hosts share one order of events."""
        self.one.callLater(1, self.ran.append, "one")
        self.other.callLater(1, self.ran.append, "other")
        self.one.callLater(0.5, self.ran.append, "first")
        self.clock.run_until(1)
        self.assertEqual(self.ran, ["first", "one", "other"])
        self.assertEqual(self.one.seconds(), 1)

    def test_works_with_twisted(self) -> None:
        """Both deferLater and Deferred.addTimeout take it for a clock."""
        fired = deferLater(self.one, 1, lambda: "done")
        never = deferLater(self.one, 9, lambda: "never").addTimeout(2, self.one)
        self.clock.run_until(3)
        self.assertEqual(self.successResultOf(fired), "done")
        self.failureResultOf(never)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_pause(self) -> None:
        """Due calls wait for resume and then run at once, in their order; others in their time."""
        for delay, name in ((2, "b"), (1, "a"), (9, "later")):
            self.one.callLater(delay, self.ran.append, name)
        self.other.callLater(3, self.ran.append, "other")
        self.one.pause()
        self.clock.run_until(5)
        self.assertEqual((self.ran, self.one.seconds()), (["other"], 5))
        self.one.callLater(0, self.ran.append, "c")
        self.one.resume()
        self.clock.run_until(5)
        self.assertEqual(self.ran, ["other", "a", "b", "c"])
        self.clock.run_until(9)
        self.assertEqual(self.ran[-1], "later")

    def test_pause_does_not_stop_steps(self) -> None:
        """With only held calls left there is nothing to step to, and time does not jump."""
        self.one.callLater(1, self.ran.append, "a")
        self.one.pause()
        self.assertFalse(self.clock.step())
        self.assertFalse(self.clock.run_while(lambda: True, 3))
        self.assertEqual(self.clock.seconds(), 3)
        self.one.resume()
        self.assertTrue(self.clock.step())
        self.assertEqual((self.ran, self.clock.seconds()), (["a"], 3))

    def test_order_at_the_moment_of_resume(self) -> None:
        """What was held runs before what is due at that very moment."""
        self.one.callLater(1, self.ran.append, "held")
        self.one.pause()
        self.clock.callLater(2, self.one.resume)
        self.one.callLater(2, self.ran.append, "due")
        self.clock.run_until(2)
        self.assertEqual(self.ran, ["held", "due"])

    def test_held_calls_can_be_cancelled_and_moved(self) -> None:
        """Others may still change their mind about a paused host's calls."""
        gone = self.one.callLater(1, self.ran.append, "gone")
        moved = self.one.callLater(1, self.ran.append, "moved")
        kept = self.one.callLater(1, self.ran.append, "kept")
        self.one.pause()
        self.clock.run_until(2)
        gone.cancel()
        moved.reset(5)
        self.assertEqual(self.one.getDelayedCalls(), [kept, moved])
        self.one.resume()
        self.clock.run_until(6)
        self.assertEqual(self.ran, ["kept"])
        self.clock.run_until(7)
        self.assertEqual(self.ran, ["kept", "moved"])

    def test_two_pauses(self) -> None:
        """Hosts are held apart, and pausing or resuming twice changes nothing."""
        self.one.callLater(1, self.ran.append, "one")
        self.other.callLater(1, self.ran.append, "other")
        for host in (self.one, self.one, self.other):
            host.pause()
        self.clock.run_until(2)
        self.other.resume()
        self.other.resume()
        self.clock.run_until(2)
        self.assertEqual(self.ran, ["other"])

    def test_kill(self) -> None:
        """A killed host's calls never run, nor those it makes later; cancelling is fine."""
        before = self.one.callLater(1, self.ran.append, "before")
        self.one.kill()
        after = self.one.callLater(1, self.ran.append, "after")
        self.other.callLater(1, self.ran.append, "other")
        self.assertEqual(self.one.getDelayedCalls(), [])
        self.one.resume()
        self.clock.run_until(5)
        self.assertEqual(self.ran, ["other"])
        before.cancel()
        after.cancel()

    def test_kill_while_paused(self) -> None:
        """What was held for it dies with it."""
        self.one.callLater(1, self.ran.append, "held")
        self.one.pause()
        self.clock.run_until(2)
        self.one.kill()
        self.one.resume()
        self.clock.run_until(3)
        self.assertEqual((self.ran, self.clock.getDelayedCalls()), ([], []))
