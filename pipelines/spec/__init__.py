"""What a person declares: `revector.toml`, checked whole and immutable afterwards."""
