"""The state of a run on disk: directory, plans, ledgers, attempts, leases, submissions."""
