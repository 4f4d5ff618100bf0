"""Command line: one module per command. No other package imports this one."""
