#!/usr/bin/env bash
# Install the Debian packages for tools/mini_slurm.py; starts no service and configures nothing.
set -euo pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
packages=(slurmctld slurmd slurm-client slurmdbd munge mariadb-server-core)
commands=(slurmctld slurmd sbatch slurmdbd munged mariadbd)

missing=()
for command in "${commands[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "slurm-setup: Slurm is installed ($(slurmctld -V)); nothing to do"
    exit 0
fi

install="apt-get install -y --no-install-recommends ${packages[*]}"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "slurm-setup: no ${missing[*]}; the Slurm tests will NOT run."
    echo "slurm-setup: on Debian or Ubuntu, as root: $install"
    exit 0
fi

echo "slurm-setup: no ${missing[*]}: installing ${packages[*]} (about 60 MB, no service is started)"
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
if ! { apt-get update -qq && $install >/dev/null; }; then
    echo "slurm-setup: could not install them; the Slurm tests will NOT run."
fi
