"""Documents and chunks as rows, the hashes that identify them, and their pure differences."""
