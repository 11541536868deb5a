"""One file a page: its address, what it reads, and what it shows."""
