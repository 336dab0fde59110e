"""A stub for tools that still look for it; the metadata is in ``setup.cfg``."""

from setuptools import setup

setup()
