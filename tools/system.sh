#!/usr/bin/env bash
# Install what some tests need: a DICOM validator and toolkit, an archive, a C compiler, Pango, a browser and what drives it.
# Does nothing where they are there; says what is skipped where it cannot install them.
set -euo pipefail

missing=()
need() { # package, then a program or a file of it
    command -v "$2" >/dev/null || [ -e "$2" ] || missing+=("$1")
}
PATH="$PATH:/usr/sbin"
need dicom3tools dciodvfy
need dcmtk storescu
need openssl openssl
need orthanc Orthanc
need orthanc-dicomweb /usr/share/orthanc/plugins/libOrthancDicomWeb.so
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing+=(postgresql)  # 60 MB
need slurmctld slurmctld  # with slurmd, 13 MB
need slurmd slurmd
need slurm-client sbatch
need gcc cc
need libc6-dev /usr/include/stdio.h
need chromium chromium
ldconfig -p | grep -q libpangoft2 || missing+=(libpango-1.0-0 libpangoft2-1.0-0)  # lays out report.pdf

browser="$(cd "$(dirname "$0")/.." && pwd)/tests/browser"
if command -v npm >/dev/null && [ ! -d "$browser/node_modules" ]; then
    npm ci --silent --no-audit --no-fund --prefix "$browser"
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "system: no apt-get here; tests that need ${missing[*]} will be skipped"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "system: not root, so tests that need ${missing[*]} will be skipped; sudo bash tools/system.sh installs them"
    exit 0
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "system: installed ${missing[*]}"
