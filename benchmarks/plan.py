"""The command line: what one run measures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from .ring import group_size

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Plan:
    """What one run measures.

    :ivar rings: their nodes and replicas.
    :ivar rounds: for each ring.
    :ivar starts: how often two nodes are started for the first correct read.
    :ivar idle_seconds: for which a ring is watched while nothing happens.
    :ivar in_flight: operations of each kind and round.
    :ivar member: the client is a node of the ring itself.
    :ivar json: print JSON.
    :ivar profile: where profiles go; empty if everything is measured instead.
    """

    rings: Sequence[tuple[int, int]]
    rounds: int
    starts: int
    idle_seconds: float
    in_flight: int
    member: bool
    json: bool
    profile: str


def plan(arguments: Sequence[str] | None = None) -> Plan:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures rings, a bare echo and a dictionary behind AMP in turns, and prints"
        " how they compare.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="about a minute, more noise")
    add(
        "--nodes",
        type=int,
        nargs="+",
        metavar="NODES",
        help="sizes of rings [8, and one of a single node]",
    )
    add(
        "--replicas",
        type=int,
        nargs="+",
        metavar="N",
        choices=(1, 3, 5),
        help="copies of a key, for each size [1 3 5, as far as the groups differ]",
    )
    add("--rounds", type=int, help="rounds for each ring [9, with --quick 2]")
    add(
        "--member",
        action="store_true",
        help="the client is a node of the ring, too, as in a program that brings its own",
    )
    add("--json", action="store_true", help="print JSON instead of the tables")
    add(
        "--profile",
        metavar="FILE",
        default="",
        help="measure nothing: run one ring (8 nodes and N=5, if not told otherwise) and show where"
        " the client and a node spend their time; statistics go to FILE.client-get and so on",
    )
    chosen = parser.parse_args(arguments)
    rounds = chosen.rounds if chosen.rounds is not None else 2 if chosen.quick else 9
    if rounds < 1 or not all(1 <= nodes <= 64 for nodes in chosen.nodes or ()):
        parser.error("at least one round, and rings of 1 to 64 nodes")
    return Plan(
        rings=_rings(chosen.nodes, chosen.replicas),
        rounds=rounds,
        starts=1 if chosen.quick else 5,
        idle_seconds=3.0 if chosen.quick else 10.0,
        in_flight=5_000 if chosen.quick else 10_000,
        member=chosen.member,
        json=chosen.json,
        profile=chosen.profile,
    )


def _rings(
    sizes: Sequence[int] | None, replicas: Sequence[int] | None
) -> Sequence[tuple[int, int]]:
    """Every size with every number of replicas; those whose groups are the same once."""
    if sizes is None:
        sizes = [8] if replicas is not None else [1, 8]
    rings: dict[tuple[int, int], tuple[int, int]] = {}
    for nodes in sizes:
        for number in replicas or (1, 3, 5):
            rings.setdefault((nodes, group_size(number, nodes)), (nodes, number))
    return list(rings.values())
