"""What every program needs and no network does."""
