"""What a run tells while it goes on, what it costs, and what it leaves for the record."""
