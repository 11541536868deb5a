"""From chunk rows to vectors, a shard of contents at a time, on a pool of actors."""
