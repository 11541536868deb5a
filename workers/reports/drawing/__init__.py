"""What people and other tools see of reports: pictures, pages, files for projectors and tables."""
