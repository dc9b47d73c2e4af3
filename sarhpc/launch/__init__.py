"""How a stage reaches a machine: job entry, local, Slurm, sbatch scripts, estimate."""
