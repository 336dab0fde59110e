"""py2p_twisted: one dictionary of bytes, shared by the machines of a Chord ring.

Importing this package starts no thread, opens no socket and installs no reactor.

* :mod:`py2p_twisted.chord`: the blocking socket, for scripts.
* :mod:`py2p_twisted.service`: the Twisted service, for applications.
* ``twistd chord``: the daemon, for the shell.
"""

__version__ = "0.1.0.dev0"

__all__ = ["__version__"]
