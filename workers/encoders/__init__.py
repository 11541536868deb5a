"""Models as they run: inputs in, vectors of one space out. Knows nothing of Ray, tables or shards."""
