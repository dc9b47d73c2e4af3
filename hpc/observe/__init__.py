"""Where a run stands, for whoever looks: status, logs, report, clean."""
