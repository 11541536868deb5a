"""What pages look at: the state of all collections, kept for seconds, and the processes that are asked."""
