"""Coverage-guided fuzzing: ``python -m tests.fuzz TARGET --seconds N`` (needs the extra ``fuzz``).

A target is a function of bytes that raises if the product does what it must not.  What the fuzzer
found worth keeping stands in ``corpus/``, and ``test_corpus.py`` plays it again without a fuzzer.
"""
