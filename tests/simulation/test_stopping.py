"""What a node says that stops and could not hand its keys over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.logger import formatEvent, globalLogPublisher

from .ring_case import RingCase, seeds
from .world import SimNode, World


class TestWords(RingCase):
    """The last line is true."""

    @contextmanager
    def said(self) -> Iterator[list[str]]:
        """The warnings that are logged meanwhile."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"].name == "warn":
                lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        try:
            yield lines
        finally:
            globalLogPublisher.removeObserver(observe)

    def stop(self, world: World, node: SimNode) -> str:
        """Stop a node; the one line that it says."""
        keys = node.service.node.core.keys
        self.assertGreater(keys, 0)
        with self.said() as lines:
            world.wait(node.service.stopService())
        world.nodes.remove(node)
        (line,) = [line for line in lines if "without handing over" in line]
        return line.replace(f"{keys} keys ", "ALL ")

    def test_last(self) -> None:
        """The last member's keys are lost."""
        for seed in seeds(2):
            with self.world(seed, replicas=3) as world:
                (node,) = self.grow(world, 1)
                self.write(world, node)
                line = self.stop(world, node)
                self.assertIn("without handing over: ALL lost with this process. (", line)

    def test_others(self) -> None:
        """Nobody can take the keys, but the others of their groups have them."""
        for seed in seeds(2):
            with self.world(seed, replicas=3, leave_timeout=0.001) as world:
                node, *others = self.grow(world, 4)
                written = self.write(world, node)
                line = self.stop(world, node)
                self.assertIn("without handing over: ALL still kept by other nodes. (", line)
                self.readable(world, written, others[:1])

    def test_away(self) -> None:
        """The others have crashed, or will come back: nobody knows."""
        for seed in seeds(2):
            with self.world(seed, replicas=3) as world:
                node, *others = self.grow(world, 3)
                self.write(world, node)
                for other in others:
                    world.crash(other)
                world.run(5)
                line = self.stop(world, node)
                self.assertIn("over: ALL kept only by nodes that do not answer. (", line)

    def test_some(self) -> None:
        """With one copy of each key it is said of each."""
        for seed in seeds(2):
            with self.world(seed, replicas=1, leave_timeout=0.001) as world:
                node, other = self.grow(world, 2)
                written = self.write(world, node)
                line = self.stop(world, node)
                self.assertIn("without handing over: ALL lost with this process. (", line)
                self.assertLess(other.service.node.core.keys, len(written))
