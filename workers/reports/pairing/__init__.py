"""Contents beside those that are near to them: pairs above a cosine, and the nearest of each."""
