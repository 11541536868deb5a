"""Bytes: small objects, Lance tables, the one atomic commit, and whether a place can be trusted with them."""
