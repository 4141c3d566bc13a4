"""The ledger: what a task is, how it changes, and the streams that keep every change."""

__version__ = "0.1.0"
