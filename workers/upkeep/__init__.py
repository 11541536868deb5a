"""Runs that look after a collection: maintain, erase, drop."""
