"""Measures of vectors and of rankings, on arrays alone, and the gates that they are held against."""
