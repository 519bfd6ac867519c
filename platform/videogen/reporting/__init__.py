"""Reports: self-contained pages, charts, contact sheets and summaries for people."""
