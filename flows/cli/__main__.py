"""`python -m flows.cli`, for a child process of this very installation."""

from flows.cli.main import main

main()
