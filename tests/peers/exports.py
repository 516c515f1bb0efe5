#!/usr/bin/env python3
"""Opens exports with the libraries that they are for: exports.py --binary target/release/rolegraft. Needs inspect-ai 0.3.285 and datasets.

inspect_ai's own reader must find samples, messages, calls, scores and spans; datasets must load the folder; and what comes back must be scored as before.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default="target/release/rolegraft")
    options = parser.parse_args()

    def run(*arguments):
        return subprocess.run([options.binary, *map(str, arguments)], capture_output=True, text=True, check=True).stdout

    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        for suite in ("tau-retail", "officebench"):
            log = work / f"{suite}.jsonl"
            run("calibrate", "--suite", suite, "-n", "8", "--out", log)
            episodes = [json.loads(line) for line in log.read_text().splitlines()[1:]]
            from inspect_ai.log import read_eval_log, read_eval_log_sample
            path = run("export", log, "--to", "inspect", "--out", work / suite).splitlines()[0]
            read = read_eval_log(path)
            assert read.status == "success" and read.eval.task == suite and len(read.samples) == len(episodes) == 8
            by_id = {sample.id: sample for sample in read.samples}
            calls = 0
            for episode in episodes:
                sample = by_id[episode["key"]["task"]]
                assert [m.text for m in sample.messages] == [m["content"] for m in episode["messages"]], sample.id
                assert [m.role for m in sample.messages] == [m["role"] for m in episode["messages"]], sample.id
                assert sample.scores["reward"].value == episode["reward"]
                assert sample.metadata["spans"][0]["spans"] == episode["turns"][0]["spans"]
                calls += sum(len(m.tool_calls or []) for m in sample.messages if m.role == "assistant")
                assert read_eval_log_sample(path, sample.id, sample.epoch).input == sample.input
            assert read.results.scores[0].metrics["mean"].value == sum(e["reward"] for e in episodes) / 8
            print(f"ok   {suite}: inspect reads 8 samples with {calls} calls")
            header = read_eval_log(path, header_only=True)
            assert header.results.completed_samples == 8
            back = work / f"back-{suite}.jsonl"
            run("calibrate", "--from", path, "--suite", suite, "--out", back)
            named = lambda all: sorted(all, key=lambda episode: episode["key"]["task"])
            assert named(json.loads(line) for line in back.read_text().splitlines()[1:]) == named(episodes)
            assert "8 passed, 0 failed" in run("score", back)
            print(f"ok   {suite}: what comes back is what went")
            from datasets import load_dataset
            folder = work / f"hf-{suite}"
            run("export", log, "--to", "hf", "--out", folder)
            loaded = load_dataset(str(folder), split="train", cache_dir=str(work / "cache"))
            assert len(loaded) == 8 and loaded[0]["messages"][0]["role"] == episodes[0]["messages"][0]["role"]
            print(f"ok   {suite}: datasets loads {loaded.column_names}")


if __name__ == "__main__":
    sys.exit(main())
