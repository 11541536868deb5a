"""A Prefect flow run as this project lives in it: its command as a child, its slot, its signs of life, its events."""
