"""How figures and words are written: units, the glossary, and tables as CSV and JSON."""
