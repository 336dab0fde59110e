"""Attacks on real nodes from outside, over raw sockets.

``python -m tests.hostile`` runs the long ones, while a well-behaved client works on the same node;
the fast ones are ordinary tests of the suite.
"""
