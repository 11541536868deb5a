"""What a person and other tools see of reports: pictures, pages, exports."""
