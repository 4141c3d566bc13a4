"""Whole services under faults that a seed draws: `python -m tests.faults.campaign --seeds 20`.

plan      what is to happen, drawn from the seed alone
run       processes, clients and faults: makes it happen, and gathers the evidence
evidence  what was acknowledged, what ran, and what the ledger says: nothing else is judged
checkers  one for each promise
"""
