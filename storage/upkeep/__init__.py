"""What stays and what goes: compaction, retention, removal."""
