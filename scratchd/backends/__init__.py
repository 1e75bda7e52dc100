"""Backends: where lines go. Each (backend, flavor) reads that flavor's journal by a cursor of its own.

`contract` says what a backend is, `supervisor` runs them, `file` and `kafka` are the two there are, `fake` misbehaves
on purpose. Backends know neither HTTP nor each other.
"""
