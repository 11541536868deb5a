"""What happened and what holds: runs, the right to commit, publications, and what versions were judged by."""
