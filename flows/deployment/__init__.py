"""Deployments as code, and the Prefect server that keeps them."""
