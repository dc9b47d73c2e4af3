"""What a run has on disk: directory, plans, ledgers, attempts, leases, submissions."""
