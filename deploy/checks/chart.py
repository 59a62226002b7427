"""Renders the Helm chart with Helm's own engine, and checks what comes out; and that the server understands the
settings that chart, image, compose file and unit give it.

    chart.py <punchline>

Helm's engine comes from PyPI (helm-python-sdk, which binds Helm's Go SDK): the `helm` binary cannot be had from
there. Objects of Kubernetes' own kinds are held against its schemas (kubernetes-validate); those of the
Prometheus operator are only looked at here.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

import helm_python as helm
import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
CHART = str(DEPLOY / "helm" / "punchline")
KUBERNETES = ("1.25", "1.34")

LEAST = {"secret": {"name": "the-secret"}}
EVERYTHING = {
    "secret": {"name": "the-secret", "masterKeyKey": ""},
    "image": {"repository": "registry.example/punchline", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "tls": {"secretName": "the-certificate"},
    "config": "[delivery]\nin_flight_max = 100\n",
    "persistence": {"storageClass": "fast", "size": "1Ti"},
    "service": {"type": "LoadBalancer", "annotations": {"a": "b"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True, "runbookBase": "https://git.example/"},
    "dashboards": {"enabled": True},
    "networkPolicy": {
        "enabled": True,
        "callers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "prometheus": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "podAnnotations": {"c": "d"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}

problems = []


def hold(condition, what):
    if not condition:
        problems.append(what)
        print(f"  WRONG {what}")


def render(values):
    """The objects, by kind and name; with release `demo`."""
    with helm.Chart.load(CHART) as chart:
        files = chart.render(values, name="demo", namespace="there")
    texts = [text for path, text in files.items() if not path.endswith(".txt")]
    objects = [each for text in texts for each in yaml.safe_load_all(text) if each]
    named = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    hold(len(named) == len(objects), "two objects of one kind have one name")
    return named


def refuses(values, why):
    with helm.Chart.load(CHART) as chart, contextlib.suppress(helm.HelmError):
        chart.render(values, name="demo", namespace="there")
        hold(False, f"{why} is not refused")


def check_versions(binary):
    """What is written down twice: the version of the server, and that of the compiler."""
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30).stdout.split()[-1]
    app_version = yaml.safe_load(pathlib.Path(CHART, "Chart.yaml").read_text())["appVersion"]
    hold(app_version == version, f"the chart is for {app_version}, the binary is {version}")
    asked = re.search(r'^rust-version = "(.*)"$', (DEPLOY.parent / "Cargo.toml").read_text(), re.M)[1]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    hold(f"FROM rust:{asked}-" in dockerfile and f"TOOLCHAIN={asked}." in dockerfile, f"the image is not built by Rust {asked}")


def check_schemas(objects):
    for (kind, name), each in objects.items():
        if "monitoring.coreos.com" in each["apiVersion"]:
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                hold(False, f"{kind} {name}, Kubernetes {version}: {error}")


def pod_of(objects):
    return objects["StatefulSet", "demo-punchline"]["spec"]["template"]


def check_pod(objects):
    stateful = objects["StatefulSet", "demo-punchline"]["spec"]
    pod = stateful["template"]
    (container,) = pod["spec"]["containers"]
    hold(stateful["replicas"] == 1, "more than one pod")
    hold(("Service", stateful["serviceName"]) in objects, "the StatefulSet's service is not there")
    hold(pod["spec"]["securityContext"]["runAsNonRoot"], "runs as root")
    hold(container["securityContext"]["readOnlyRootFilesystem"], "the root file system can be written")
    hold(container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, "has capabilities")
    hold(not container["securityContext"]["allowPrivilegeEscalation"], "may gain privileges")
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    hold(ports == {"grpc": 50051, "http": 8080, "metrics": 9464}, f"ports are {ports}")
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        hold(container[probe]["httpGet"]["path"] == path, f"{probe} asks for something else than {path}")
        hold(container[probe]["httpGet"]["port"] == "http", f"{probe} asks at another port than http")
    labels = pod["metadata"]["labels"].items()
    for (kind, name), each in objects.items():
        spec = each.get("spec", {})
        if kind == "Service":
            hold(spec["selector"].items() <= labels, f"service {name} does not select the pod")
            for port in spec["ports"]:
                hold(ports.get(port["targetPort"]) == port["port"], f"service {name} leads {port} elsewhere")
        if kind == "NetworkPolicy":
            hold(spec["podSelector"]["matchLabels"].items() <= labels, "the policy does not select the pod")
            named = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
            hold(named == set(ports), f"the policy is about {named}")
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | {"data"}
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    hold(volumes == mounts, f"volumes {volumes} are mounted as {mounts}")


def check_monitoring(objects):
    monitor = objects["ServiceMonitor", "demo-punchline"]["spec"]
    service = objects["Service", "demo-punchline-headless"]
    hold(monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items(), "the monitor finds no service")
    others = [each for (kind, name), each in objects.items() if kind == "Service" and each is not service]
    for each in others:
        hold(not monitor["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items(), "the monitor finds two")
    hold(monitor["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}, "the monitor's port is not there")
    renamed = {"targetLabel": "job", "replacement": "punchline"}
    hold(renamed in monitor["endpoints"][0]["relabelings"], "the job is not called punchline, as rules and dashboards have it")
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    based = rules.replace("runbook_url: docs/", "runbook_url: https://git.example/docs/")
    hold(objects["PrometheusRule", "demo-punchline"]["spec"] == yaml.safe_load(based), "the rules are not those of deploy/prometheus")
    hold(based.count("https://git.example/") == rules.count("- alert:"), "not every alert has its entry's address")
    shown = objects["ConfigMap", "demo-punchline-dashboards"]["data"]
    files = {f"punchline-{path.name}": json.loads(path.read_text()) for path in (DEPLOY / "grafana" / "dashboards").iterdir()}
    hold({name: json.loads(text) for name, text in shown.items()} == files, "the dashboards are not those of deploy/grafana")


# What the server is given, as environment.


def image_environment():
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return dict(pair.split("=", 1) for line in re.findall(r"^ENV (PUNCHLINE.*)$", text, re.M) for pair in shlex.split(line))


def unit_environment():
    text = (DEPLOY / "punchline.service").read_text()
    return dict(pair.split("=", 1) for pair in re.findall(r"^Environment=(.*)$", text, re.M))


def check_settings(binary, where, environment, configuration=""):
    """Whether the binary takes this environment; files that it names are made elsewhere."""
    contents = {"MASTER_KEY_FILE": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "TOKEN_FILE": "0123456789abcdef"}
    with tempfile.TemporaryDirectory() as work:
        given = {key: value for key, value in os.environ.items() if not key.startswith("PUNCHLINE_")}
        for name, value in environment.items():
            # What compose asks its caller for.
            value = re.sub(r"\$\{.*?\}", contents["TOKEN_FILE"], value)
            content = next((content for ending, content in contents.items() if name.endswith(ending)), None)
            if content or name == "PUNCHLINE_CONFIG":
                value = f"{work}/{name}"
                pathlib.Path(value).write_text(content or configuration)
            given[name] = value
        done = subprocess.run([binary, "config", "check"], env=given, capture_output=True, text=True, timeout=30)
        hold(done.returncode == 0, f"{where}: {done.stderr.strip() or done.stdout.strip()}")


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    check_versions(binary)
    for values in (LEAST, EVERYTHING):
        lint = helm.lint(CHART, values, strict=True)
        worse = [message for message in lint["messages"] if message["severity"] > 1]
        hold(not worse and not lint["errors"], f"helm lint: {worse or lint['errors']}")
        objects = render(values)
        check_schemas(objects)
        check_pod(objects)
        given = pod_of(objects)["spec"]["containers"][0]["env"]
        environment = image_environment() | {each["name"]: each["value"] for each in given}
        check_settings(binary, "chart", environment, objects["ConfigMap", "demo-punchline"]["data"]["punchline.toml"])
        print(f"  {len(objects)} objects: {', '.join(sorted(kind for kind, _ in objects))}")
    check_monitoring(objects)
    refuses({}, "a chart without a Secret")
    refuses(LEAST | {"replicas": 2}, "a value that there is not")
    check_settings(binary, "unit", unit_environment())
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    check_settings(binary, "compose", image_environment() | services["punchline"]["environment"])
    for source in (volume.split(":")[0] for service in services.values() for volume in service["volumes"]):
        hold(not source.startswith(".") or (DEPLOY / source).exists(), f"compose: there is no {source}")
    if problems:
        sys.exit(f"{len(problems)} wrong")


main()
