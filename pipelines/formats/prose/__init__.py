"""Files that are one document each: plain text, Markdown and HTML, in whichever encoding."""
