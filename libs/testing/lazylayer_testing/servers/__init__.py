"""Real servers as child processes of a test, each private to one directory and one port of 127.0.0.1.

`process` starts a program, waits until it answers and stops it. `docker_registry` and `containerd` run
Debian's packages of these names; `certificates` asks openssl for an authority and what it signs.
A program that is not installed raises ServerError; mark tests with `lazylayer_testing.needs` to skip them.
"""

from __future__ import annotations
