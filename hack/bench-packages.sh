#!/usr/bin/env bash
# PostgreSQL and Redis from Debian, for `make bench`.
exec "$(dirname "$0")/packages.sh" bench
