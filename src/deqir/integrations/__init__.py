"""Bridges to other libraries; each needs that library installed and is imported on its own."""
