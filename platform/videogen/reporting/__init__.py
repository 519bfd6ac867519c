"""Reports: HTML pages of tables and of trained cascades, contact sheets, and table summaries for a terminal."""
