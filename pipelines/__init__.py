"""What is to be done: specs, formats, content and its differences, chunking, spaces, measures. Pure: neither store, cluster nor model."""
