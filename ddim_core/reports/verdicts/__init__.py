"""Verdicts on checkpoints: sentences and pictures made of them; the page lies in tasks.reports."""
