"""The pages of a run in a browser: status, validation grids, report and inspection."""
