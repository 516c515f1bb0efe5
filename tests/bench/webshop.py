"""WebShop's search side by side: Lucene (Anserini's jar) and rolegraft, the same catalogue and queries, in one run, one core each.

    python tests/bench/webshop.py --catalogue FOLDER --jar anserini-0.14.3-fatjar.jar --bench BINARY

FOLDER holds a catalogue, one product a line (the bench below writes one into an empty folder); BINARY is what `cargo bench --workspace --bench
webshop --no-run` names. Needs Java. Lucene's index is made in FOLDER/lucene, once.
"""

import argparse
import json
import os
import re
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
            item = json.loads(line.strip().lstrip("[").rstrip("],").rstrip(",") if line.rstrip().endswith("}]") else line.strip().lstrip("[").rstrip(","))
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
# The queries of the bench, twice: the second time the machine is warm.
with open(f"{options.catalogue}/queries.txt") as file:
    queries = [line.strip() for line in file]
with open(f"{options.catalogue}/topics.tsv", "w") as out:
    for number, query in enumerate(queries * 2):
        out.write(f"{number}\t{query}\n")
done = subprocess.run(
    [*java, "io.anserini.search.SearchCollection", "-index", index, "-topicreader", "TsvInt", "-topics",
     f"{options.catalogue}/topics.tsv", "-output", f"{options.catalogue}/run.txt", "-bm25", "-hits", "50", "-threads", "1"],
    check=True, capture_output=True, text=True)
said = done.stdout + done.stderr
# Times of single queries are not told: the mean of the second half is, as far as the log gives times.
stamps = re.findall(r"(\d+:\d+:\d+[.,]\d+).*?(?:queries processed|Finished|Run .* topics)", said)
elapsed = re.findall(r"(\d+) topics searched in (\d+):(\d+):(\d+)", said)
print(f"Lucene: index {size:.0f} MB; {elapsed or stamps}")
print("\n".join(line for line in said.splitlines() if "topics" in line or "qps" in line.lower())[-500:])
