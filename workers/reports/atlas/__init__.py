"""Making an atlas: landmarks, their graph, their places on a map, and their clusters with names; on arrays alone."""
