"""What is learned from stored vectors: bridges between two spaces."""
