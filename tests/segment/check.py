"""Asks a server, by the command line, whether everything that the clients sent is there once: check.py <punchline> <metrics URL> <runs>"""
import json
import pathlib
import subprocess
import sys
import urllib.request
from collections import Counter

punchline, metrics_url, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
given = json.loads(pathlib.Path(__file__).with_name("messages.json").read_text())
clients = ["node", "python"]
faults = []


def ask(*arguments):
    return json.loads(subprocess.run([punchline, "--output", "json", *arguments], check=True, capture_output=True).stdout)


def check(what, got, expected):
    if got == expected:
        print(f"  ok     {what}: {got}")
    else:
        print(f"  FAULT  {what}: {got}, expected {expected}")
        faults.append(what)


def data(event):
    # Told as an object, or as its text.
    told = event.get("data", event.get("data_json", "{}"))
    return json.loads(told) if isinstance(told, str) else told


events = ask("events", "read", "--limit", "10000")
types = Counter(event["type"] for event in events)
for name, count in {
    "consumption.recorded": 2,
    "segment.order_completed": 1,
    "segment.page_scrolled": given["bulk"],
    "wallet_pass.installed": 1,
    "segment.page": 1,
    "segment.screen": 1,
    "segment.group": 1,
    "segment.alias": 1,
    # Of the two that are identified, one is new; the other gets another id.
    "member.updated": 1,
}.items():
    check(name, types[name], count * len(clients))
check("member.created, the one of --dev included", types["member.created"], 1 + len(clients))

known = ask("members", "lookup", "--email", "user@example.com")
externals = sorted(i["value"] for i in known["identifiers"] if i["key"] == "externalId")
check("the known member's ids", externals, [f"{client}-1" for client in clients])
check("its plan", known["profile"]["attributes"].get("plan"), "gold")
accounts = [account["balance"] for account in ask("members", "balances", known["member_id"])]
points = {balance["currency"]: int(balance["amount"]) for balance in accounts}
check("its points, 100 and twice 50 by each client", max(points.values()), 200 * len(clients))

orders = [event for event in events if event["type"] == "segment.order_completed"]
check("whose orders", {event["member_id"] for event in orders}, {known["member_id"]})
check("what an order says", {(data(o)["total"], data(o)["event"]) for o in orders}, {(99.5, "Order Completed")})
check("the clients' names", sorted(data(o)["context"]["library"]["name"] for o in orders), ["@segment/analytics-node", "analytics-python"])

for i, client in enumerate(clients, 1):
    new = ask("members", "lookup", "--email", f"{client}-2@example.com")
    identifiers = sorted(identifier["value"] for identifier in new["identifiers"])
    check(f"the new member of {client}", identifiers, sorted([f"{client}-2", f"{client}-2@example.com", f"4072000000{i}"]))
    profile = new["profile"]
    shown = [profile["first_name"], profile["last_name"], profile["birth_date"], profile["attributes"]]
    check("its profile", shown, ["Ana", "Pop", "1990-04-01", {"vip": "true"}])

metrics = urllib.request.urlopen(metrics_url).read().decode()
refused = [line for line in metrics.splitlines() if line.startswith("punchline_ingest_rejections_total")]
strangers = sum(int(float(line.split()[-1])) for line in refused if "ACCOUNT_NOT_FOUND" in line)
check("strangers counted since the start", strangers, len(clients) * runs)
others = [line for line in refused if not any(r in line for r in ("ACCOUNT_NOT_FOUND", "CONSUMPTION_EXISTS\"", "INVALID_CREDENTIALS")) and not line.endswith(" 0")]
check("refused for anything else", others, [])
sys.exit(1 if faults else 0)
