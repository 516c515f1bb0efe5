"""What a turn costs the harness: CPU time and memory of two builds, against a server that is never what is measured.

    python tests/bench/turns.py --old BINARY --new BINARY [--episodes 256,2000] [--delay 0.05]

Each binary is a `rolegraft`. It plays built-in tasks of τ-bench's shop, all at once, with a server on this machine that asks
for the order of the task whatever it is sent, after DELAY seconds, so that every episode is open until its turns run out.
CPU time and peak resident set are the whole process's. Every number is measured RUNS times, the median is shown; the two
builds take turns. Their logs must say the same.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import resource
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
for name in ("old", "new"):
    parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
parser.add_argument("--episodes", default="256,2000", type=lambda text: [int(n) for n in text.split(",")])
parser.add_argument("--delay", type=float, default=0.05)
parser.add_argument("--runs", type=int, default=3)
options = parser.parse_args()
TASKS = 300
LENGTH, ORDER = re.compile(rb"content-length: (\d+)", re.I), re.compile(rb"#W\d+")


def answer(order):
    call = json.dumps({"name": "get_order_details", "arguments": {"order_id": order}})
    text = f"<tool_call>\n{call}\n</tool_call>"
    choice = {"message": {"content": text}, "text": text, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 900, "completion_tokens": 40}}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class Server(asyncio.Protocol):
    """One connection."""

    answers = {}

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(self.buffer, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < whole:
                return
            order = ORDER.search(self.buffer, end, whole)
            self.buffer = self.buffer[whole:]
            order = order[0].decode() if order else "#W0"
            if order not in self.answers:
                self.answers[order] = answer(order)
            asyncio.get_running_loop().call_later(options.delay, self.transport.write, self.answers[order])


def serve(port):
    async def forever():
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def flags(binary, episodes):
    told = subprocess.run([binary, "eval", "--help"], check=True, capture_output=True, text=True).stdout
    # Builds without the flag open eight requests an engine.
    if "--concurrency" in told:
        return ["--concurrency", str(episodes)]
    return ["--engines", str(-(-episodes // 8))]


def play(binary, episodes, folder):
    tasks = max(n for n in range(1, TASKS + 1) if episodes % n == 0)
    log = os.path.join(folder, f"{time.monotonic_ns()}.jsonl")
    command = [binary, "eval", "--model", f"http://127.0.0.1:{port}/v1#m", "--suite", "tau-retail", "--log", log]
    command += ["-n", str(tasks), "--trials", str(episodes // tasks), *flags(binary, episodes)]
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    assert status == 0, command
    with open(log) as lines:
        _, *played = map(json.loads, lines)
    turns = sum(len(e["turns"]) for e in played)
    for episode in played:
        del episode["seconds"]
    said = sorted(json.dumps(e) for e in played)
    per_turn = [1000 * seconds / turns for seconds in (usage.ru_utime, usage.ru_stime)]
    return turns, said, (sum(per_turn), *per_turn, usage.ru_maxrss / 1024, wall)


resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
ours, theirs = multiprocessing.Pipe()
multiprocessing.Process(target=serve, args=(theirs,), daemon=True).start()
port = ours.recv()
builds = {"old": options.old, "new": options.new}
with tempfile.TemporaryDirectory() as folder:
    for episodes in options.episodes:
        played = {name: [] for name in builds}
        for _ in range(options.runs):
            for name, binary in builds.items():
                turns, said, measured = play(binary, episodes, folder)
                played[name].append((said, measured))
        assert len({json.dumps(said) for runs in played.values() for said, _ in runs}) == 1, "the logs differ"
        print(f"{episodes} episodes at once, {turns} turns; the logs say the same")
        print(f"{'':6}{'ms a turn':>11}{'user':>9}{'sys':>9}{'MB peak':>10}{'s in all':>10}")
        medians = {}
        for name, runs in played.items():
            row = medians[name] = [statistics.median(column) for column in zip(*(measured for _, measured in runs))]
            print(f"{name:6}{row[0]:11.3f}{row[1]:9.3f}{row[2]:9.3f}{row[3]:10.1f}{row[4]:10.2f}")
        old, new = medians["old"], medians["new"]
        print(f"times{old[0] / new[0]:11.1f}{'':18}{old[3] / new[3]:10.1f}{old[4] / new[4]:10.1f}")
