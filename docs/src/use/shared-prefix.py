"""Asks a server many questions about one text, and says when their first tokens came and what was shared.

    python3 shared-prefix.py PORT TEXT
"""
import concurrent.futures
import json
import sys
import time
import urllib.request

BASE = f"http://127.0.0.1:{sys.argv[1]}"
# About 3,800 tokens.
TEXT = open(sys.argv[2], encoding="utf-8").read()[:16500]
NAMES = ["idle_bytes", "shared_bytes", "reused_total", "tokens_reused_total"]


def ask(question):
    """Seconds to the first token."""
    body = {
        "model": "default",
        "max_tokens": 12,
        "temperature": 0,
        "stream": True,
        "messages": [
            {"role": "system", "content": TEXT},
            {"role": "user", "content": question},
        ],
        "kv_cache": {"shared_prefix": "system"},
    }
    request = urllib.request.Request(
        f"{BASE}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    start = time.time()
    with urllib.request.urlopen(request) as answer:
        answer.readline()
        first = time.time() - start
        answer.read()
    return first


print(f"first token of the first: {ask('Who is it about?'):.2f} s")
print(f"first token of the second: {ask('Where does it happen?'):.2f} s")
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    firsts = sorted(pool.map(ask, [f"What is said in part {n}?" for n in range(16)]))
print(f"first tokens of sixteen at once: {firsts[0]:.2f} to {firsts[-1]:.2f} s")
time.sleep(1)
for line in urllib.request.urlopen(f"{BASE}/metrics").read().decode().splitlines():
    if any(line.startswith(f"mistralrs_kv_cache_{name} ") for name in NAMES):
        print(line)
