#!/usr/bin/env bash
# A SimPy simulation in which everything waits ends like one that is done.
#
# Behaviour: Environment.run() returns None as soon as no event is scheduled, also when processes still wait for events
# that nobody will trigger. Only run(until=event) tells, with a RuntimeError, that the event never came. A simulator
# needs an event of its own for the end, and must ask for it.
#
# A good guess: a simulation whose processes all wait for each other raises, or the return value tells the two ends
# apart.
#
# Seen: run() returns None with the process unfinished; run(until=...) raises RuntimeError.
#
# Versions: simpy 4.1.2. Exits with 1 when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check simpy==4.1.2
cd "$folder"
cat > try.py <<'EOF'
from importlib.metadata import version
print('simpy', version('simpy'))

import simpy

def waits(environment, event, done):
    yield event
    done.append(environment.now)

environment, done = simpy.Environment(), []
process = environment.process(waits(environment, environment.event(), done))
print("run() returned", environment.run(), "finished:", done, "alive:", process.is_alive)
assert done == [] and process.is_alive
environment = simpy.Environment()
process = environment.process(waits(environment, environment.event(), done))
try:
    environment.run(until=process)
    raise SystemExit("run(until=...) returns now")
except RuntimeError as err:
    print("run(until=process):", str(err)[:60])
EOF
"$folder/venv/bin/python" try.py
