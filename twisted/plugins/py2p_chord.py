"""Tells ``twistd`` and ``twist`` of ``chord``; the command is in :mod:`py2p_twisted.tap`."""

from twisted.application.service import ServiceMaker

chord = ServiceMaker(
    "Chord ring",
    "py2p_twisted.tap",
    "A node of a ring that keeps one dictionary, shared by all its machines.",
    "chord",
)
