"""What the README promises, across all rooms."""
