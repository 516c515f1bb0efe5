#!/usr/bin/env bash
# What a card gives, beside what the CPU gives, in under ten minutes and without a network: check.sh BINARY [MODEL_DIR].
# BINARY comes of build.sh. Needs python3, the driver, and libcublas, libcublasLt, libcurand, libcudart of CUDA 13 where the
# loader finds them (LD_LIBRARY_PATH may name nvidia/cu13/lib of the folder that build.sh kept). Everything is asked of the nano
# pool, and of MODEL_DIR if given: a checkpoint that fits the card, and in F32 the machine's memory.
# ROLEGRAFT_CONFORMANCE: the folder of recordings (engine-golden, saliency-golden). DEVICE: the card (cuda:0); `cpu` plays all on
# the CPU, which tries this script. ENGINE: what plays (mistralrs; on the CPU candle, since mistral.rs 0.8.1 built for cards
# cannot run a model there that has as many heads of keys as of queries). BANDWIDTH: the card's, in GB/s.
# A line a finding: PASS, FAIL, or FIGURE where nothing is expected. Exit 1 if anything failed, 3 if there is no card.
set -euo pipefail
binary=$(realpath "${1:?check.sh BINARY [MODEL_DIR]}") model=${2:+$(realpath "$2")}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
device=${DEVICE:-cuda:0} card="the CPU" many=32
if [ "$device" = cpu ]; then
  engine=${ENGINE:-candle} many=2
else
  index=${device#cuda:}
  card=$(nvidia-smi -i "$index" --query-gpu=name,memory.total,driver_version --format=csv,noheader) ||
    { echo "no card: nvidia-smi does not find $device${card:+ ($card)}" >&2; exit 3; }
  engine=${ENGINE:-mistralrs}
fi
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
failed=0 SECONDS=0
say() { echo "$@"; case $1 in FAIL) failed=1;; esac; }
# tell NAME: says what was written to $work/said, or that the comparison failed with a code other than 0.
tell() {
  local code=$? verdict rest
  if [ $code != 0 ]; then say FAIL "$1: cannot be compared: $(tail -n 1 "$work/err")"; return; fi
  while read -r verdict rest; do say "$verdict" "$rest"; done < "$work/said"
}
# The line of $work/err that says why.
why() { { grep -m 1 -i '^error' "$work/err" || tail -n 1 "$work/err"; } | cut -c1-300; }
# run WHAT ARGUMENT…: the program, as long as the ten minutes last; its output and seconds are left in $work. A failure is said.
run() {
  local what=$1 began code=0 left=$((590 - SECONDS)); shift
  began=$(date +%s.%N)
  timeout $((left > 1 ? left : 1)) "$binary" "$@" > "$work/out" 2> "$work/err" || code=$?
  python3 -c 'import sys; print(float(sys.argv[2]) - float(sys.argv[1]))' "$began" "$(date +%s.%N)" > "$work/seconds"
  case $code in
    0) ;;
    124) say FAIL "$what: the ten minutes are over"; return 1;;
    *) say FAIL "$what: exit $code: $(why)"; return 1;;
  esac
}

if ! "$binary" --version > "$work/out" 2>&1; then
  say FAIL "the program does not start: $(tail -n 1 "$work/out")"; exit 1
fi
say FIGURE "$(cat "$work/out") on $card, $(nproc) processors"
if run doctor doctor --device "$device" --suites "$root/benchmarks"; then
  line=$(grep -m 1 -E 'GPU|card|cuda' "$work/out" || true)
  case $device$line in cpu* | cuda*ok\ *) say PASS "doctor: $line";; *) say FAIL "doctor: $line";; esac
fi

# (a) Recorded ids and saliencies. candle computes in F32 and must agree wherever the recording is clear; an engine in BF16 may
# pick another token where the two best logits came closer than 0.5, some steps of BF16 at the size that these logits have.
ids() {
  local who=$1 where=$2 clear=$3 name="ids of $1 on $2"
  local code=0
  timeout 120 "$binary" conformance engine --traces "$ROLEGRAFT_CONFORMANCE/engine-golden" --engine "$who" \
    --device "$where" > "$work/out" 2> "$work/err" || code=$?
  if [ $code -gt 1 ] || ! grep -q ' passed' "$work/out"; then
    say FAIL "$name: exit $code: $(why)"; return
  fi
  set +e
  python3 - "$work/out" "$ROLEGRAFT_CONFORMANCE/engine-golden/cases.json" "$name" "$clear" > "$work/said" 2> "$work/err" <<'PY'
import json, re, sys
out, cases, name, clear = sys.argv[1:]
gaps = [case["min_top2_margin"] for case in json.load(open(cases))]
other = [(int(m[1]), m[2]) for m in re.finditer(r"^\S+, model (\d+): (.*)", open(out).read(), re.M)]
wrong = [f"case {i} (gap {gaps[i]:.3f}): {what}" for i, what in other
         if gaps[i] >= float(clear) or not what.startswith("id ")]
print("FAIL" if wrong else "PASS", "; ".join([f"{name}: {len(gaps) - len(other)} of {len(gaps)} as recorded, "
      f"{len(wrong)} differ where the gap is {clear} or more"] + wrong[:3]))
PY
  tell "$name"; set -e
}
if [ -d "${ROLEGRAFT_CONFORMANCE:-}/engine-golden" ]; then
  ids candle cpu 0.001
  [ "$device" = cpu ] || ids candle "$device" 0.001
  ids mistralrs "$device" "$([ "$device" = cpu ] && echo 0.001 || echo 0.5)"
  if run "recorded saliencies on $device" conformance saliency --traces "$ROLEGRAFT_CONFORMANCE/saliency-golden" \
    --data "$ROLEGRAFT_CONFORMANCE" --device "$device"; then
    say PASS "recorded saliencies on $device: $(tail -n 1 "$work/out")"
  fi
else
  say FAIL "ids: no recordings; set ROLEGRAFT_CONFORMANCE to their folder"
fi

# Greedy, so that two ways to play a task should end alike.
mkdir "$work/suites"; cp -r "$root/benchmarks/tau-retail" "$work/suites"
sed -i 's/^temperature = .*/temperature = 0.0/' "$work/suites/tau-retail/suite.toml"
suite=(--suite tau-retail --suites "$work/suites")

# play DIR EPISODES AT_ONCE LOG
play() {
  run "$2 episodes, $3 at once" eval --model "$1" "${suite[@]}" --split test -n "$2" --seed 1 --engine "$engine" \
    --device "$device" --engines "$3" --log "$work/$4.jsonl" && mv "$work/seconds" "$work/$4.seconds"
}

# (b) The same episodes one by one and at once; (d) tokens a second. What loading takes is taken off by a run of one episode.
episodes() {
  local name=$1 dir=$2
  rm -f "$work"/*.jsonl
  play "$dir" 1 1 first && play "$dir" 32 1 single && play "$dir" 32 "$many" batch && play "$dir" 32 "$many" again || return 0
  set +e
  python3 - "$work" "$name" "$dir" "$many" "$device" "$card" "${BANDWIDTH:-}" > "$work/said" 2> "$work/err" <<'PY'
import glob, json, os, sys
work, name, dir, many, device, card, bandwidth = sys.argv[1:]
log = {}
for run in ("first", "single", "batch", "again"):
    lines = [json.loads(line) for line in open(f"{work}/{run}.jsonl")]
    log[run] = {(e["key"]["task"], e["key"]["trial"]): e for e in lines if "key" in e}
took = {run: float(open(f"{work}/{run}.seconds").read()) for run in log}
spent = {run: sum(e["spent"]["completion_tokens"] for e in of.values()) for run, of in log.items()}
score = {run: 100 * sum(e["reward"] for e in of.values()) / max(len(of), 1) for run, of in log.items()}
ids = lambda e: [turn["ids"] for turn in e["turns"]]
same = lambda a, b, what: sum(k in log[b] and what(e) == what(log[b][k]) for k, e in log[a].items())
of, alike = len(log["single"]), same("single", "batch", lambda e: e["reward"])
# A batch may be summed up in another order than one request, which turns near-ties; on the CPU nothing may differ.
enough = of == 32 and alike >= (of if device == "cpu" else 0.9 * of)
print("PASS" if enough else "FAIL", f"{name}: {many} at once against one by one: {alike} of {of} episodes score alike,"
      f" {same('single', 'batch', ids)} have the same ids ({same('batch', 'again', ids)} when repeated);"
      f" scores {score['single']:.1f} and {score['batch']:.1f};"
      f" {took['single']:.1f} s one by one, {took['batch']:.1f} s and {took['again']:.1f} s at once")
rate = lambda run: (spent[run] - spent["first"]) / max(took[run] - took["first"], 1e-9)
# One request reads all weights for each token; GB/s by the cards' data sheets.
read = sum(os.path.getsize(f) for f in glob.glob(f"{dir}/*.safetensors")) / 1e9
table = {"B200": 8000, "GH200": 4000, "H200": 4800, "H100 NVL": 3938, "H100 PCIe": 2039, "H100": 3350, "A100-SXM4-80": 2039,
         "A100 80GB PCIe": 1935, "A100": 1555, "L40S": 864, "L40": 864, "L4,": 300, "A10,": 600, "RTX 4090": 1008,
         "RTX 3090": 936, "Tesla T4": 320}
peak = float(bandwidth) if bandwidth else next((v for k, v in table.items() if k in card), None)
beside = "the memory's bandwidth is not known (BANDWIDTH)"
if peak:
    beside = f"{rate('single') * read:.0f} GB/s of weights one by one; the memory's {peak:.0f} would be {peak / read:.0f} tokens/s"
print("FIGURE", f"{name}: {rate('single'):.0f} tokens/s one by one, {rate('batch'):.0f} with {many} at once,"
      f" prompts and tools included; {beside}")
PY
  tell "$name, episodes"; set -e
}

# (c) Saliencies of the card beside the CPU's.
traces() {
  local name=$1 dir=$2 count=$3 tolerance=$4 precision where how
  run "trajectories" calibrate "${suite[@]}" -n "$count" --out "$work/played.jsonl" || return 0
  run "tokens" calibrate "$work/played.jsonl" --model "$dir" --out "$work/set.calibration.jsonl" || return 0
  for precision in cpu f32 tf32 bf16; do
    where=$device how=$precision; [ $precision != cpu ] || where=cpu how=f32
    run "$name: trace on $where in $how" trace --model "$dir" --calibration "$work/set.calibration.jsonl" \
      --device "$where" --precision "$how" --out "$work/$precision.saliency.safetensors" || continue
    [ $precision != cpu ] || { cp "$work/seconds" "$work/cpu.seconds"; continue; }
    [ -e "$work/cpu.saliency.safetensors" ] || continue
    set +e
    python3 - "$work" "$precision" "$name" "$tolerance" > "$work/said" 2> "$work/err" <<'PY'
import array, json, math, sys
work, precision, name, tolerance = sys.argv[1:]
def layers(which):
    with open(f"{work}/{which}.saliency.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        at, sums = file.tell(), header["sums"]
        assert sums["dtype"] == "F64"
        begin, end = sums["data_offsets"]
        file.seek(at + begin)
        values = array.array("d", file.read(end - begin))
    width = sums["shape"][1]
    return [values[i:i + width] for i in range(0, len(values), width)]
def top(layer):
    return set(sorted(range(len(layer)), key=lambda j: (-layer[j], j))[:math.ceil(0.1 * len(layer))])
seconds = [float(open(f"{work}/{f}").read()) for f in ("cpu.seconds", "seconds")]
cpu, card = layers("cpu"), layers(precision)
far = [abs(a - b) / max(abs(b), 1e-6) for c, d in zip(card, cpu) for a, b in zip(c, d)]
# max() passes over what is not a number.
worst = max(far) if all(map(math.isfinite, far)) and len(card) == len(cpu) else math.inf
mean = sum(far) / len(far)
members = [top(layer) for layer in cpu]
other = sum(len(mine - top(layer)) for mine, layer in zip(members, card)) / sum(map(len, members))
verdict = "FAIL" if worst == math.inf else "FIGURE" if precision != "f32" else "PASS" if worst <= float(tolerance) else "FAIL"
print(verdict, f"{name}: trace in {precision} against the CPU in f32: largest relative difference {worst:.1e}, mean {mean:.1e};",
      f"{100 * other:.2f} % of the sets' members differ; {seconds[1]:.1f} s, the CPU {seconds[0]:.1f} s")
PY
    tell "$name, trace in $precision"; set -e
  done
  rm -f "$work"/*.saliency.safetensors
}

# Deep models carry what the order of sums does to F32 through more layers.
traces "nano pool" "$root/benchmarks/nano-pool/tau" 40 1e-4
episodes "nano pool" "$root/benchmarks/nano-pool/tau"
if [ -n "$model" ]; then
  traces "$(basename "$model")" "$model" 2 1e-2
  episodes "$(basename "$model")" "$model"
fi
say FIGURE "$SECONDS s in all"
exit $failed
