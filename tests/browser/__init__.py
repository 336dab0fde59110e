"""The page of the ring in headless Chromium, against real nodes: ``python -m tests.browser``.

Needs Chromium, and so is no part of the ordinary tests: no module here is one that ``trial``
discovers.
"""
