"""WebShop's search side by side: Lucene (Anserini's jar) and rolegraft, the same catalogue and queries, in one run, one core each.

    python tests/bench/webshop.py --catalogue FOLDER --jar anserini-0.14.3-fatjar.jar --bench BINARY

FOLDER holds a catalogue, one product a line (the bench below writes one into an empty folder); BINARY is what `cargo bench --workspace --bench
webshop --no-run` names. Needs Java. Lucene's index is made in FOLDER/lucene, once.
"""

import argparse
import json
import os
import subprocess
import time

parser = argparse.ArgumentParser()
for name in ("catalogue", "jar", "bench"):
    parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
options = parser.parse_args()

print(subprocess.run([options.bench, options.catalogue], check=True, capture_output=True, text=True).stdout, end="")
documents, index = f"{options.catalogue}/documents", f"{options.catalogue}/lucene"
java = ["java", "-Xmx4g", "-cp", options.jar]
if not os.path.isdir(index):
    os.makedirs(documents, exist_ok=True)
    begun = time.perf_counter()
    with open(f"{options.catalogue}/items_shuffle.json") as items, open(f"{documents}/documents.jsonl", "w") as out:
        for line in items:
            item = json.loads(line.strip().removeprefix("[").rstrip(",").removesuffix("]"))
            menus = ", and ".join(
                f"{name.lower()}: {', '.join(v['value'].strip().replace('/', ' | ').lower() for v in values)}"
                for name, values in item["customization_options"].items()
            )
            text = " ".join((item["name"], item["full_description"], item["small_description"][0], menus)).lower()
            out.write(json.dumps({"id": item["asin"], "contents": text}) + "\n")
    print(f"Lucene: documents written in {time.perf_counter() - begun:.0f} s")
    begun = time.perf_counter()
    subprocess.run(
        [*java, "io.anserini.index.IndexCollection", "-collection", "JsonCollection", "-generator", "DefaultLuceneDocumentGenerator",
         "-threads", "2", "-input", documents, "-index", index],
        check=True, capture_output=True)
    print(f"Lucene: indexed in {time.perf_counter() - begun:.0f} s")
size = sum(os.path.getsize(f"{index}/{name}") for name in os.listdir(index)) / 1e6
with open(f"{options.catalogue}/queries.txt") as file:
    queries = [line.strip() for line in file]


def seconds(times):
    """How long the queries take, so many times over, Java's start included."""
    with open(f"{options.catalogue}/topics.tsv", "w") as out:
        out.writelines(f"{number}\t{query}\n" for number, query in enumerate(queries * times))
    begun = time.perf_counter()
    subprocess.run(
        [*java, "io.anserini.search.SearchCollection", "-index", index, "-topicreader", "TsvInt", "-topics",
         f"{options.catalogue}/topics.tsv", "-output", f"{options.catalogue}/run.txt", "-bm25", "-hits", "50", "-threads", "1"],
        check=True, capture_output=True)
    return time.perf_counter() - begun


# What four more rounds take is free of Java's start.
mean = (seconds(5) - seconds(1)) / (4 * len(queries)) * 1e3
print(f"Lucene: index {size:.0f} MB; {mean:.2f} ms a query (mean)")
