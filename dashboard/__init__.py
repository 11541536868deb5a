"""Seen by whom: pages for the data team, of what the store has; reads `storage` only."""
