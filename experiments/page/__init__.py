"""Page of a sweep: report.html, one file without network, that shows its tables, pictures and runs."""
