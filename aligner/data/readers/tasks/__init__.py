"""Tasks: tables of fields, and the templates that write their rows as text (survey arXiv:2303.18223, 5.1.1)."""
