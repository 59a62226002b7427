"""Checks what no tool of Prometheus' or Grafana's knows: that alerts, runbook, tests and dashboards are complete.

    words.py <punchline>

- Each alert has a severity, a summary, a description and the address of its entry in docs/runbook.md; each entry
  there is an alert's; links within the runbook lead somewhere.
- Each `punchline` command of the runbook is one, with the flags that it has.
- Each alert has a test that sees it fire, and one that sees it silent.
- Dashboards have ids of their own, and panels that lie beside each other and take the chosen data source and
  instance.
"""

import itertools
import json
import pathlib
import re
import subprocess
import sys

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
RUNBOOK = DEPLOY.parent / "docs" / "runbook.md"
SEVERITIES = {"page", "ticket"}

problems = []


def problem(where, what):
    problems.append(where)
    print(f"  WRONG {where}: {what}")


def check_alerts(alerts):
    runbook = RUNBOOK.read_text()
    entries = re.findall(r"^## (\w+)$", runbook, re.M)
    for alert in alerts:
        name, notes = alert["alert"], alert.get("annotations", {})
        severity = alert.get("labels", {}).get("severity")
        if severity not in SEVERITIES:
            problem(name, f"severity {severity} is none of {', '.join(sorted(SEVERITIES))}")
        for note in ("summary", "description"):
            if not notes.get(note):
                problem(name, f"has no {note}")
        if notes.get("runbook_url") != f"docs/runbook.md#{name.lower()}":
            problem(name, f"its runbook_url is {notes.get('runbook_url')}")
        if name not in entries:
            problem(name, f"has no entry in {RUNBOOK.name}")
        elif f"\n## {name}\n\n*{severity}.*" not in runbook:
            problem(name, f"its entry does not begin with *{severity}.*")
    names = [alert["alert"] for alert in alerts]
    for entry in entries:
        if entry not in names or entries.count(entry) > 1:
            problem(entry, f"{RUNBOOK.name} has an entry for it, and it is no alert, or has another")
    for name in names:
        if names.count(name) > 1:
            problem(name, "is the name of two alerts")
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", runbook, re.M)}
    for anchor in re.findall(r"\]\(#([^)]*)\)", runbook):
        if anchor not in anchors:
            problem(RUNBOOK.name, f"links to #{anchor}, which is not there")
    return names


def check_commands(binary):
    """The runbook's commands, from code blocks and from within sentences."""
    text = RUNBOOK.read_text()
    found = re.findall(r"`punchline ([^`\n]+)`", text) + re.findall(r"^punchline ([^#|\n]+)", text, re.M)
    for command in sorted({each.strip() for each in found}):
        words = command.split()
        flags = [word for word in words if word.startswith("--")]
        # Up to the first flag, or what stands for something else; the others are arguments of it.
        named = list(itertools.takewhile(lambda word: re.fullmatch(r"[a-z-]+", word) and word not in flags, words))
        done = subprocess.run([binary, *named, "--help"], capture_output=True, text=True, timeout=30)
        if done.returncode != 0 or f"{' '.join(named)} " not in done.stdout:
            problem(RUNBOOK.name, f"there is no command `punchline {' '.join(named)}`")
        for flag in flags:
            if not re.search(rf"^ +(-., )?{flag}\b", done.stdout, re.M):
                problem(RUNBOOK.name, f"`punchline {' '.join(named)}` has no {flag}")
    if not found:
        problem(RUNBOOK.name, "has no commands at all")


def check_tests(names):
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
    for name in names:
        asked = f'ALERTS{{alertname="{name}",alertstate="firing"'
        cases = [case for test in tests for case in test["promql_expr_test"] if asked in case["expr"]]
        if not any(case["exp_samples"] for case in cases):
            problem(name, "no test sees it fire")
        if not any(not case["exp_samples"] for case in cases):
            problem(name, "no test sees it silent")


def check_dashboards():
    uids = []
    for path in sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        uids.append(board["uid"])
        ids, taken = [], set()
        for panel in board["panels"]:
            where = f"{path.name}, {panel['title']}"
            ids.append(panel["id"])
            place = panel["gridPos"]
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            if cells & taken or place["x"] + place["w"] > 24:
                problem(where, "lies upon another panel, or beyond the edge")
            taken |= cells
            if panel["datasource"] != {"type": "prometheus", "uid": "$datasource"}:
                problem(where, "does not take the chosen data source")
            for target in panel["targets"]:
                if 'instance=~"$instance"' not in target["expr"] and "ALERTS{" not in target["expr"]:
                    problem(where, "does not take the chosen instance")
        if len(ids) != len(set(ids)):
            problem(path.name, "two panels have one id")
    if len(uids) != len(set(uids)):
        problem("dashboards", "two have one uid")


groups = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
check_tests(check_alerts([rule for group in groups for rule in group["rules"] if "alert" in rule]))
check_commands(sys.argv[1])
check_dashboards()
if problems:
    sys.exit(f"{len(problems)} wrong")
