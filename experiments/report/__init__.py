"""Tables of results: reading result files, the tables, their captions and notes."""
