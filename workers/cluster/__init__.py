"""Ray as a place: connections, nodes, jobs."""
