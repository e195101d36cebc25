"""What a run left behind, read back (`read`) and shown as one self-contained page (`page`)."""

from ..shards import read_groups, rollout_steps
from .page import write_report
from .read import SummaryRow, read_metrics, summary

__all__ = ["SummaryRow", "read_groups", "read_metrics", "rollout_steps", "summary", "write_report"]
