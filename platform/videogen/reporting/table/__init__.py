"""The report of a table: one self-contained page, and its numbers as JSON, written at the end of every run.

`write_report(uri)` makes `report/index.html` and `report/report.json` in the table. To add a section: find its content
in a file of its own, name it in contents.py, and show it in templates/table.html.j2.
"""

from videogen.reporting.table.write import PAGE_NAME, write_report

__all__ = ["PAGE_NAME", "write_report"]
