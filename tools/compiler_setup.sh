#!/usr/bin/env bash
# Install g++ for tests/pretended_gpu.
set -euo pipefail

if command -v g++ >/dev/null; then
    echo "compiler-setup: $(g++ --version | head -1) is installed; nothing to do"
    exit 0
fi

install="apt-get install -y --no-install-recommends g++"
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "compiler-setup: no g++; the tests on a pretended GPU will NOT run."
    echo "compiler-setup: on Debian or Ubuntu, as root: $install"
    exit 0
fi

echo "compiler-setup: no g++: installing it"
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && $install >/dev/null; }; then
    echo "compiler-setup: could not install it; the tests on a pretended GPU will NOT run."
fi
