"""How fast the dictionary is, against what Twisted itself can do on the same machine and now.

``python -m benchmarks`` from the checkout prints one table; ``README.rst`` explains it.
"""
