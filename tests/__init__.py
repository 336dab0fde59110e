"""The tests, always those of the checkout that one stands in.

``trial tests`` does not look into the current folder (Twisted issue 8972), so an installation from
a checkout brings this package along; releases are built from a source archive without it.  What it
then runs are the checkout's files, against the installed ``py2p_twisted``.
"""

from pathlib import Path

_here = Path.cwd() / "tests"
if (_here / "test_architecture.py").is_file():
    __path__ = [str(_here)]
