"""What reports say of versions, kept beside them: atlases, tables of rows, and records that never change."""
