"""What is there, for those who read: published versions, neighbours, completeness, status."""
