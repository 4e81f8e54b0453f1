"""One file per op: its float64 reference and its cases (see opcase.py)."""
