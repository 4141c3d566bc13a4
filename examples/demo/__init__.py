"""One story on real input, told by `python -m examples.demo`; it fails if any of it is untrue."""
