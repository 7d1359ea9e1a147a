"""Reports on runs: one HTML page, and its tables as Markdown and CSV."""

from tracegrad.lab.report.writing import write_report

__all__ = ["write_report"]
