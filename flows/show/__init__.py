"""What a person is shown: tables and sentences, progress, artifacts of Prefect, JSON lines."""
