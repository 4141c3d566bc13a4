"""Measures ledgerq beside what the machine can do: `python -m bench --help`."""
