"""Torture: many bad inputs, faults and kills, each with a seed that repeats it.

`make torture` runs all of it for as long as it takes and prints a table; `make test` runs a short form of each
campaign (`test_torture.py`). A campaign (`campaign.py`) is a list of kinds and a function from (kind, seed) to what
went wrong, or nothing. Begin reading in `__main__.py`.
"""
