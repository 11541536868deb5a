"""What people look at to know what the vectors of a version say."""
