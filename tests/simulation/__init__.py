"""The simulator: many hosts in one process, on one clock, from one seed.

Test support, outside the floors of the product.  ``clock`` owns time, ``weather`` chance and
cuts, ``pipe`` and ``connection`` the bytes under way, ``network`` hosts and their faults;
``history``, ``register`` and ``invariants`` are the judges.  None of them imports the code under
test.
"""
