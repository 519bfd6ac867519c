"""Report of a trained cascade."""
