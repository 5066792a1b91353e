#!/usr/bin/env bash
# Runs a taskmanager in the foreground: `taskmanager.sh start-foreground [OPTIONS]`, or without the verb.
# A service manager should keep it running; `thalweg cluster start` starts whole clusters in the background.
set -euo pipefail
case "${1:-start-foreground}" in
    start-foreground) [ $# -gt 0 ] && shift || true ;;
    start | stop | stop-all)
        echo "taskmanager.sh: $1: use start-foreground under a service manager, or start-cluster.sh and stop-cluster.sh" >&2
        exit 64
        ;;
esac
exec "${THALWEG:-thalweg}" "$@" taskmanager
