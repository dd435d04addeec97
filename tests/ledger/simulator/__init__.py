"""A simulation of payouts on a hostile chain: seeded, deterministic, in the spirit of TigerBeetle's VOPR.

The payout code, the PostgreSQL beneath it and the programs on the chain are real. What is simulated is everything
between them that breaks: nodes that drop, delay, lag and lie, forks, crashes between any two steps, clocks that jump, a
database that is restored to an earlier moment.
`python -m tests.ledger.simulator --seeds 2000` runs it; a failing seed is replayed by `--first SEED --seeds 1`.
"""
