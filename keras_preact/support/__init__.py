"""General parts that every program needs and no network does."""
