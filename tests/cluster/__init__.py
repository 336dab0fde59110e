"""Rings of real processes under load and faults: ``python -m tests.cluster`` (test support).

Long, and no part of the ordinary tests: no module here is one that ``trial`` discovers.
"""
