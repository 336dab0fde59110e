"""A model of the table: its rules alone, on any schedule, without Twisted (test support).

``world`` owns time, messages, faults and the schedule; ``member`` what a node answers;
``proposing`` and ``clients`` how it writes and reads; ``moving`` how a group gets its next epoch.
All that decides anything is the product's own floor 0: the acceptor, the proposal, ballots,
digests, bases.  The histories go through the project's own checker.  ``mutants`` takes the rules
out one by one; ``script`` runs schedules that are written by hand, in ``epochs`` and ``writes``,
for what chance does not find.
"""
