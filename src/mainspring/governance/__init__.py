"""Governance: gates and policies as code, approvals, the record of who decided what on which evidence."""
