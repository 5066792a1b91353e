#!/usr/bin/env bash
# Starts a session cluster on this machine. Arguments go to `thalweg cluster start`: --taskmanagers N, --slots S, --dir DIR.
set -euo pipefail
exec "${THALWEG:-thalweg}" cluster start "$@"
