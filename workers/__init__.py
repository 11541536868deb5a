"""Who does it: encoders, the cluster, ingest, embedding, planning, judging, learning, reports, runs."""
