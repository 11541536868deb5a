"""Versions before their gates, and side by side."""
