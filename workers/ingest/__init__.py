"""From the corpus to chunk rows, a source shard at a time."""
