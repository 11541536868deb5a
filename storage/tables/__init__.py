"""The two tables of a collection: chunks, and the vectors of each generation with their index."""
