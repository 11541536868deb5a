"""Runs on another machine: submitted, attached to, rendered as a manifest, shown as if they were here."""
