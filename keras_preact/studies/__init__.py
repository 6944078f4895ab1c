"""Networks and runs analysed: pages, pictures and CSV files."""
