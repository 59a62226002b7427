"""Checks dashboards and rules against a server that really runs, seen through a Prometheus that really scrapes it.

    observe.py <punchline> <prometheus> <promtool>

It starts the binary, makes everything happen that the queries ask about, and then holds that

- every metric, label and label value that a query names is there, and no rule fails to be evaluated;
- every query of a dashboard has an answer, with the labels that its legend names;
- every alert has something to look at, with the labels that its texts name.

What cannot be made to happen here is in UNPROVOKED, each with its reason; nothing else is let off.
"""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import math
import os
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

import promql_parser as promql
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))

# Label values that are not brought about: the file of the server that writes them, and why.
UNPROVOKED = {
    'reason="JOURNAL_STOPPED"': ("server/src/ingest.rs", "takes a disk that fails and is not full"),
    'code="INTERNAL"': ("server/src/grpc/layer.rs", "takes a bug or a disk that fails"),
}
# Longest that something may take to show.
PATIENCE_S = 30
COMPARISONS = {"==", "!=", ">", "<", ">=", "<="}

problems = []


def problem(where, what):
    problems.append(f"{where}: {what}")
    print(f"  WRONG {problems[-1]}")


# The server and what surrounds it.


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def receiver(status):
    """The URL of a receiver on loopback that answers everything with `status`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


def wait_for(what, condition):
    until = time.monotonic() + PATIENCE_S
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            sys.exit(f"waited {PATIENCE_S} s in vain for {what}")
        time.sleep(0.2)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.read() or True
    except (OSError, urllib.error.URLError):
        return None


@contextlib.contextmanager
def process(command, log):
    """Runs a command, and shows the end of what it said should this check be given up meanwhile."""
    # SIGXFSZ stays ignored, as Python has it: a file that may not grow is then an error like any other. Through
    # a pipe, since that error is not to concern the log.
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, restore_signals=False)

    def copy():
        with open(log, "ab", buffering=0) as out:
            for line in running.stdout:
                out.write(line)

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    try:
        yield running
    except SystemExit:
        print(pathlib.Path(log).read_text()[-2000:], file=sys.stderr)
        raise
    finally:
        running.terminate()
        running.wait(60)
        copying.join(5)


class Punchline:
    """A development server, on ports of its own that stay the same from one start to the next."""

    def __init__(self, binary, work):
        self.binary, self.work = binary, work
        self.grpc, self.http, self.metrics = free_port(), free_port(), free_port()

    def serve(self, **settings):
        settings |= {
            "server.grpc_bind": f"127.0.0.1:{self.grpc}",
            "server.http_bind": f"127.0.0.1:{self.http}",
            "server.metrics_bind": f"127.0.0.1:{self.metrics}",
            "metrics.per_subscription": "true",
            "ingest.rate_limit_http_per_minute": "0",
        }
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        command = [self.binary, "serve", "--dev", "--data-dir", f"{self.work}/data", *sets]
        return process(command, f"{self.work}/punchline.log")

    def wait(self):
        wait_for("the server", lambda: answers(f"http://127.0.0.1:{self.http}/readyz"))

    def call(self, *arguments, stdin="", may_fail=False):
        environment = os.environ | {
            "PUNCHLINE_ENDPOINT": f"http://127.0.0.1:{self.grpc}",
            "PUNCHLINE_TOKEN": "dev-operator",
            "PUNCHLINE_ADVERTISER": "1000000001",
        }
        command = [self.binary, "--output", "json", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)
        if done.returncode != 0 and not may_fail:
            sys.exit(f"{' '.join(command)}: {done.stderr}")
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    def consumptions(self, ids, phone="40720005123"):
        line = {
            "consumptionDate": "2026-01-02T03:04:05Z",
            "identifiers": [{"key": "phoneNumber", "value": phone}],
            "consumptionLines": [{"sku": "velo_can_ice", "quantity": 1}],
        }
        lines = "\n".join(json.dumps({"consumptionId": each} | line) for each in ids)
        self.call("consumptions", "record", stdin=lines, may_fail=True)

    def segment_batch(self, count):
        """A batch, which is refused where the queue is full. One larger than the queue takes all of it."""
        traits = {"phone": "40720005123"}
        batch = [
            {"type": "track", "event": "velo_pk_poll_strength", "messageId": str(uuid.uuid4()), "userId": "u", "context": {"traits": traits}}
            for _ in range(count)
        ]
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/v1/batch", json.dumps({"batch": batch}).encode())
        request.add_header("authorization", "Basic " + base64.b64encode(b"dev-write-key:").decode())
        request.add_header("content-type", "application/json")
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=30).read()


def make_things_happen(punchline, round_number):
    """What the dashboards show: everything that a server of everyday life does, and some trouble."""
    ids = [f"c-{round_number}-{n}" for n in range(50)]
    punchline.consumptions(ids + ids[:5])
    punchline.consumptions([f"stranger-{round_number}"], phone="40799999999")
    for job in ("recalculation", "expiry", "birthdays", "leaderboards"):
        punchline.call("jobs", "run", job)


def refuse_until_seen(punchline, prometheus, reason):
    """Sends what is refused, several at once, until Prometheus has seen it grow."""
    grew = f'rate(punchline_ingest_rejections_total{{reason="{reason}"}}[1m]) > 0'

    def refused():
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(punchline.segment_batch, [100] * 4))
        return prometheus.query(grew)

    wait_for(reason, refused)


def subscribe(punchline):
    failing = receiver(500)
    create = ("subscriptions", "create", "--url")
    punchline.call(*create, receiver(200))
    punchline.call(*create, failing, "--no-retries", "--no-breaker")
    punchline.call(*create, failing, "--breaker-failures", "1", "--breaker-open", "15m")
    punchline.call(*create, receiver(410))
    # A consumer that nobody asks for any more.
    punchline.consumptions(["for-the-consumer"])
    punchline.call("events", "consume", "nobody", "--from-start", "--limit", "1")


# Prometheus.


class Prometheus:
    def __init__(self, port):
        self.api = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path, **parameters):
        url = f"{self.api}/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def query(self, expression):
        """Series with a value that is a number, as their labels."""
        answer = self.get("query", query=expression)
        if answer["resultType"] == "scalar":
            return [{}]
        return [series["metric"] for series in answer["result"] if not math.isnan(float(series["value"][1]))]

    def query_when_there(self, expression):
        """As `query`, with some patience: rates need two scrapes, recorded series an evaluation more."""
        until = time.monotonic() + PATIENCE_S
        while not (series := self.query(expression)) and time.monotonic() < until:
            time.sleep(0.5)
        return series


# Queries.


def dashboard_queries():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*")
                yield f"{path.name}, {panel['title']}", expression, target.get("legendFormat", "")


def rules():
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def walk(expression):
    """All nodes below and with `expression`."""
    nodes = []
    promql.walk(expression, lambda node: nodes.append(node))
    return nodes


def selectors(expression):
    return [node for node in walk(expression) if isinstance(node, promql.VectorSelector)]


def let_off(text):
    for matcher in UNPROVOKED:
        label = matcher.split("=")[0]
        text = text.replace(matcher, f'{label}=~".+"')
    return text


def labels_named(node):
    """Labels that a node itself groups or matches by."""
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql.AggregateExpr) and modifier:
        return list(modifier.labels)
    if isinstance(node, promql.BinaryExpr) and modifier:
        return re.findall(r"\w+", re.sub(r"^\s*\w+", "", str(modifier.matching or ""))) + list(modifier.group_labels or [])
    return []


def check_names(where, text, prometheus):
    """Whether metrics, labels and values are there."""
    expression = promql.parse(let_off(text))
    for selector in selectors(expression):
        all_series = prometheus.query_when_there(f"last_over_time({selector.name}[10m])")
        if not all_series:
            problem(where, f"no metric {selector.name}")
            continue
        known = {label for series in all_series for label in series}
        for matcher in selector.matchers.matchers:
            values = {series.get(matcher.name) for series in all_series}
            if matcher.name not in known:
                problem(where, f"{selector.name} has no label {matcher.name}, only {', '.join(sorted(known))}")
            elif matcher.op in (promql.MatchOp.Equal, promql.MatchOp.NotEqual) and matcher.value not in values:
                problem(where, f'{selector.name} never has {matcher.name}="{matcher.value}", only {sorted(map(str, values))}')
            elif re.fullmatch(r"\w+(\|\w+)*", matcher.value) and not set(matcher.value.split("|")) <= values:
                problem(where, f"{selector.name} has not all of {matcher.name}=~{matcher.value}, only {sorted(map(str, values))}")
    for node in walk(expression):
        below = selectors(node)
        if not below or not labels_named(node):
            continue
        known = {label for each in below for series in prometheus.query(f"last_over_time({each.name}[10m])") for label in series}
        for label in labels_named(node):
            if label not in known:
                problem(where, f"groups or matches by {label}, which is no label of {', '.join(each.name for each in below)}")


def signals(expression):
    """What an alert looks at, without the comparisons that decide whether it fires: alternatives."""
    if isinstance(expression, promql.ParenExpr):
        return signals(expression.expr)
    if isinstance(expression, promql.BinaryExpr):
        operator = str(expression.op)
        if operator == "or":
            return signals(expression.lhs) + signals(expression.rhs)
        if operator in COMPARISONS | {"and", "unless"}:
            return signals(expression.lhs)
    if isinstance(expression, promql.AggregateExpr) and str(expression.op) == "sum":
        inner = expression.expr
        if isinstance(inner, promql.ParenExpr):
            inner = inner.expr
        if isinstance(inner, promql.BinaryExpr) and str(inner.op) == "unless":
            return signals(inner)
    return [expression]


def check_dashboards(prometheus):
    for where, text, legend in dashboard_queries():
        try:
            check_names(where, text, prometheus)
            series = prometheus.query_when_there(text)
        except ValueError as error:
            problem(where, f"{error}: {text}")
            continue
        if not series:
            problem(where, f"no answer to {text}")
        for label in re.findall(r"{{\s*(\w+)\s*}}", legend):
            if any(label not in each for each in series):
                problem(where, f"the legend names {label}, which is not in the answer to {text}")


def check_rules(prometheus):
    for rule in rules():
        where = rule.get("alert") or rule["record"]
        check_names(where, rule["expr"], prometheus)
        alternatives = " or ".join(f"({each.prettify()})" for each in signals(promql.parse(let_off(rule["expr"]))))
        found = prometheus.query_when_there(alternatives)
        if not found:
            problem(where, "nothing to look at: its query has no answer, whatever the threshold")
            continue
        named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule.get("annotations", {}))))
        if not any(named <= set(series) for series in found):
            problem(where, f"its texts name {sorted(named)}, its series have {sorted(found[0])}")
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                problem(rule["name"], f"health {rule['health']}: {rule.get('lastError')}")


def check_unprovoked():
    asked = " ".join(rule["expr"] for rule in rules()) + " ".join(text for _, text, _ in dashboard_queries())
    for matcher, (path, reason) in UNPROVOKED.items():
        value = matcher.split('"')[1]
        print(f"  not brought about: {matcher}, {reason}; only looked for in {path}")
        if matcher not in asked:
            problem(matcher, "is let off, and no query asks for it")
        if f'"{value}"' not in (DEPLOY.parent / path).read_text():
            problem(matcher, f"{path} does not say {value}")


def check_recorded_are_used():
    texts = [rule["expr"] for rule in rules()] + [text for _, text, _ in dashboard_queries()]
    used = {selector.name for text in texts for selector in selectors(promql.parse(text))}
    for rule in rules():
        if "record" in rule and rule["record"] not in used:
            problem(rule["record"], "is recorded, and nobody asks for it")
    return used


def main():
    binary, prometheus_bin, promtool = (str(pathlib.Path(argument).resolve()) for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="punchline-observe-") as work:
        punchline, port = Punchline(binary, work), free_port()
        # The names and rules are those of production; only the pace is not.
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(RULES)]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{punchline.metrics}"]}]
        pathlib.Path(f"{work}/prometheus.yml").write_text(yaml.safe_dump(config))
        command = [
            prometheus_bin,
            f"--config.file={work}/prometheus.yml",
            f"--storage.tsdb.path={work}/tsdb",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with process(command, f"{work}/prometheus.log"):
            prometheus = Prometheus(port)
            wait_for("Prometheus", lambda: answers(f"http://127.0.0.1:{port}/-/ready"))
            with punchline.serve() as running:
                punchline.wait()
                subscribe(punchline)
                for round_number in range(3):
                    make_things_happen(punchline, round_number)
                    # Rates want something to have changed between two scrapes.
                    scraped = prometheus.query_when_there("punchline_log_head_sequence") and time.time()
                    wait_for("a scrape", lambda: prometheus.query(f"timestamp(punchline_log_head_sequence) > {scraped}"))
                exposition = answers(f"http://127.0.0.1:{punchline.metrics}/metrics")
                print("dashboards")
                check_dashboards(prometheus)
                # No file may grow: as good as a full disk.
                limits = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
                refuse_until_seen(punchline, prometheus, "DISK_FULL")
                resource.prlimit(running.pid, resource.RLIMIT_FSIZE, limits)
                punchline.wait()
            # One batch takes all of the queue.
            with punchline.serve(**{"ingest.queue_max": "16"}):
                punchline.wait()
                refuse_until_seen(punchline, prometheus, "QUEUE_FULL")
                print("rules")
                check_rules(prometheus)
            check_unprovoked()
    if problems:
        sys.exit(f"{len(problems)} wrong")
    used = check_recorded_are_used()
    lint = subprocess.run([promtool, "check", "metrics"], input=exposition, capture_output=True, timeout=30)
    for line in (lint.stdout + lint.stderr).decode().splitlines():
        print(f"  promtool check metrics: {line}")
    families = set(re.findall(r"^# TYPE (punchline_\w+)", exposition.decode(), re.M))
    unasked = sorted(name for name in families if not any(each.startswith(name) for each in used))
    print(f"  {len(families)} metrics of ours, of which nobody asks for: {', '.join(unasked) or 'none'}")
    if problems:
        sys.exit(f"{len(problems)} wrong")


if __name__ == "__main__":
    main()
