"""What a person sees of a finished run: one self-contained HTML page, and its plots as PNG."""

from __future__ import annotations

from warmstart.report.page import export_plots, render_report, write_report, write_run_report

__all__ = ["export_plots", "render_report", "write_report", "write_run_report"]
