"""Who may look, from where, and what a person may do here: the guard of every request, and the acts."""
