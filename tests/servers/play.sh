# Plays the nano pool through servers and in process, on the same tasks with the same seeds, and shows the scores side by side.
# Sourced by the scripts beside it. ROLEGRAFT: the program; TESTS: test tasks a suite.
rolegraft=${ROLEGRAFT:-rolegraft}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# experiment FILE ENGINE MORE: the pool's base and experts on the suites that they serve, with MORE as further tables.
experiment() {
  cat > "$1" <<TOML
name = "$2"
seed = 1
engine = "$2"
suites = "$root/benchmarks"
$3
[pool]
base = "$root/benchmarks/nano-pool/base"
[pool.experts]
tau = "$root/benchmarks/nano-pool/tau"
office = "$root/benchmarks/nano-pool/office"
[[benchmark]]
id = "tau"
title = "tau"
expert = "tau"
suites = ["tau-retail"]
[[benchmark]]
id = "officebench"
title = "OfficeBench"
expert = "office"
suites = ["officebench"]
[tasks]
calibration = 20
dev = 10
test = ${TESTS:-60}
[[candidate]]
name = "average"
operator = "average"
[[candidate]]
name = "ties"
operator = "ties"
TOML
}

# play WORK MORE
play() {
  experiment "$1/server.toml" server "$2"
  experiment "$1/mistralrs.toml" mistralrs ""
  for engine in server mistralrs; do
    echo "== $engine"
    "$rolegraft" run "$1/$engine.toml" --results "$1/results" > "$1/$engine.out"
    cat "$1/results/runs/$engine/tables/table1.md"
  done
  cat "$1/results/runs/server/tables/servers.md"
  test -z "$(find "$1/results/servers" -name '*.json')" || { echo "a server was left"; exit 1; }
}
