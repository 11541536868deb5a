"""Encoders of text: sentence-transformers models, batched by tokens and packed."""
