"""How an atlas is made: landmarks, the graph of their neighbours, their places in the plane, and clusters with names."""
