#!/usr/bin/env bash
# Stops the session cluster of this machine. Arguments go to `thalweg cluster stop`: --dir DIR.
set -euo pipefail
exec "${THALWEG:-thalweg}" cluster stop "$@"
