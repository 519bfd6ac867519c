"""Generated reference pages of docs/reference/, one module a subject."""
