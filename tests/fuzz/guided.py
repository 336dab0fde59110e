"""One run of the fuzzer, in a process of its own: libFuzzer ends the process that it runs in."""

from __future__ import annotations

import sys

import atheris

# Of what reads messages the fuzzer sees little, it is written in C; so what makes them counts, too.
with atheris.instrument_imports(include=["py2p_twisted", "tests.hostile.forge", "tests.fuzz"]):
    from .targets import TARGETS


def main(name: str, *options: str) -> None:
    """Run it; never returns."""
    target = TARGETS[name]

    def once(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
