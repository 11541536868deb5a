"""The kinds of reports, one in each file: what each says of a version."""
