"""How documents are cut into chunks that a model reads whole."""
