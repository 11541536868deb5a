"""A run: the one attempt to bring a collection up to date, from its fence to its record."""
