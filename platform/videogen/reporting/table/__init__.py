"""Table report: one self-contained page and its numbers as JSON, written at the end of every ingest and encode run.

`write_report(uri)` writes `report/index.html` and `report/report.json` into the table. To add a section: gather its
content in a module of its own, add it to contents.py, and show it in templates/table.html.j2.
"""

from videogen.reporting.table.write import PAGE_NAME, write_report

__all__ = ["PAGE_NAME", "write_report"]
