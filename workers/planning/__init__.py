"""What a run would do: the spec resolved on this machine, the store as it stands, the difference between them."""
