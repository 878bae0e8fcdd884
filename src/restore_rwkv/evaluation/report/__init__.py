"""One self-contained page of HTML that shows a study."""

from restore_rwkv.evaluation.report.page import write_report

__all__ = ["write_report"]
