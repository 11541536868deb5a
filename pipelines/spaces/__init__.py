"""Embedding spaces: everything that decides the vector of an input, as one fingerprint."""
