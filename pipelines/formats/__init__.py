"""How bytes become rows: Parquet, JSON lines, CSV, text, Markdown and HTML, and what one file may cost."""
