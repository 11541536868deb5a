"""Marts: small typed tables of what runs leave, for pages and for BI tools: read off the records, and kept up to date by each run."""
