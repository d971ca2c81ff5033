"""What bin/lib/chart runs: fails where a rendered chart is not as Kubernetes or we want it."""

import json
import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
# Prometheus' operator has them; kubernetes-validate has no schema of them. What is in a rule is held by check_monitoring.
OTHERS = ["ServiceMonitor", "PrometheusRule"]
ROOT = Path(__file__).resolve().parents[2]


def check(objects):
    """What is wrong with one rendering."""
    for version in VERSIONS:
        for item in objects:
            if item["kind"] not in OTHERS:
                try:
                    kubernetes_validate.validate(item, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    yield f"{named(item)}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
    names = [named(item) for item in objects]
    yield from (f"{name} twice" for name in names if names.count(name) > 1)
    workloads = of(objects, "Deployment") + of(objects, "Job")
    for workload in workloads:
        yield from (f"{named(workload)}: {wrong}" for wrong in check_pod(workload, objects))
    for deployment in of(objects, "Deployment"):
        yield from (f"{named(deployment)}: {wrong}" for wrong in check_deployment(deployment, objects))
    pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads]
    for item in of(objects, "Service") + of(objects, "PodDisruptionBudget") + of(objects, "NetworkPolicy"):
        spec = item["spec"]
        labels = spec.get("podSelector", spec.get("selector"))
        labels = labels.get("matchLabels", labels)
        if sum(labels.items() <= pod.items() for pod in pods) != 1:
            yield f"{named(item)} selects not the pods of one workload: {labels}"
    for scaler in of(objects, "HorizontalPodAutoscaler"):
        if scaler["spec"]["scaleTargetRef"]["name"] not in [item["metadata"]["name"] for item in of(objects, "Deployment")]:
            yield f"{named(scaler)} scales nothing"
    yield from check_monitoring(objects)


def check_logins(objects):
    """No two workloads have one login: each service has its own, and the owner's is the migrations'."""
    holders = {}
    for workload in of(objects, "Deployment") + of(objects, "Job"):
        volumes = workload["spec"]["template"]["spec"].get("volumes", [])
        keys = {item["key"] for volume in volumes for item in volume.get("secret", {}).get("items", []) if item["path"].endswith("DATABASE_URL")}
        classes = {volume["csi"]["volumeAttributes"]["secretProviderClass"] for volume in volumes if "csi" in volume}
        for source in keys | classes:
            holders.setdefault(source, []).append(named(workload))
    yield from (f"{' and '.join(names)} log in by {source}" for source, names in holders.items() if len(names) > 1)
    if len(holders) < 4:
        yield f"three services and the migrations have no more logins than {sorted(holders)}"


def check_pod(workload, objects):
    pod = workload["spec"]["template"]["spec"]
    security = pod["securityContext"]
    if not (security["runAsNonRoot"] and security["runAsUser"] > 0 and security["seccompProfile"] == {"type": "RuntimeDefault"}):
        yield "may run as root, or with any system call"
    if pod["enableServiceLinks"] or pod["automountServiceAccountToken"]:
        yield "is told of other services, or may ask the API server"
    for container in pod["containers"]:
        if container["securityContext"] != {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}:
            yield "has privileges"
        if not ({"cpu", "memory"} <= container["resources"]["requests"].keys() and "memory" in container["resources"]["limits"]):
            yield "has no resources"
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        if mounted != {volume["name"] for volume in pod.get("volumes", [])}:
            yield f"mounts {mounted}, and has other volumes"
        yield from check_settings(container, pod)


def check_settings(container, pod):
    """Secrets come from files that are there, and the programs know each setting."""
    known = re.findall(r'"(PRIMETRADE_\w+)"', (ROOT / "crates/settings/src/variables.rs").read_text())
    secret = re.findall(r'Variable::secret\("(\w+)"', (ROOT / "crates/settings/src/variables.rs").read_text())
    files = [f"/run/secrets/primetrade/{item['path']}" for volume in pod.get("volumes", []) for item in volume.get("secret", {}).get("items", [])]
    # of these it is not known what is in them
    others = [f"{mount['mountPath']}/" for mount in container.get("volumeMounts", []) if mount["name"] != "secrets"]
    for variable in container.get("env", []):
        name, value = variable["name"], variable.get("value", "")
        if name.startswith("PRIMETRADE_") and name.removesuffix("_FILE") not in known and name not in known:
            yield f"{name} is no setting"
        if name in secret or (name.startswith("AWS_") and "KEY" in name and "valueFrom" not in variable):
            yield f"{name} is a secret, and stands in a variable"
        if name.startswith("PRIMETRADE_") and name.endswith("_FILE") and value not in files and not value.startswith(tuple(others)):
            yield f"{name}: {value} is not mounted"
    if container["name"] != "nginx" and "PRIMETRADE_SECRET_FILE" not in [variable["name"] for variable in container["env"]]:
        yield "has no PRIMETRADE_SECRET"


def check_deployment(deployment, objects):
    spec = deployment["spec"]
    pod, labels = spec["template"]["spec"], spec["selector"]["matchLabels"]
    if not labels.items() <= spec["template"]["metadata"]["labels"].items():
        yield "selects other pods than its own"
    if spec["strategy"]["rollingUpdate"] != {"maxSurge": 1, "maxUnavailable": 0}:
        yield "has fewer copies during an update"
    if [spread["topologyKey"] for spread in pod["topologySpreadConstraints"]] != ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]:
        yield "is not spread over zones and nodes"
    for container in pod["containers"]:
        if not {"startupProbe", "livenessProbe", "readinessProbe", "lifecycle"} <= container.keys():
            yield "has not all probes"
    if pod["serviceAccountName"] not in [account["metadata"]["name"] for account in of(objects, "ServiceAccount")]:
        yield "has no account of its own"
    scalers = [item for item in of(objects, "HorizontalPodAutoscaler") if item["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]]
    if ("replicas" in spec) == bool(scalers):
        yield "has its number of copies from nobody, or from two"
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        selectors = [item["spec"].get("podSelector", item["spec"].get("selector"))["matchLabels"] for item in of(objects, kind)]
        if labels not in selectors:
            yield f"has no {kind}"


def check_monitoring(objects):
    """Alerts and dashboard reach the cluster as deploy/ has them."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    yield from (f"{named(item)} has not the groups of deploy/prometheus/rules.yml" for item in of(objects, "PrometheusRule") if item["spec"] != rules)
    dashboard = json.loads((ROOT / "deploy/grafana/primetrade.json").read_text())
    for item in boards(objects):
        try:
            same = json.loads(item["data"]["primetrade.json"]) == dashboard
        except ValueError:
            same = False
        if not same:
            yield f"{named(item)} is not deploy/grafana/primetrade.json"


def boards(objects):
    return [item for item in of(objects, "ConfigMap") if "primetrade.json" in item["data"]]


def lay_out_gateway(folder, objects):
    """Its configuration as files."""
    folder.mkdir()
    (configuration,) = [item for item in of(objects, "ConfigMap") if "nginx.conf" in item["data"]]
    for name, text in configuration["data"].items():
        (folder / name).write_text(text)


def of(objects, kind):
    return [item for item in objects if item["kind"] == kind]


def named(item):
    return f"{item['kind']} {item['metadata']['name']}"


def main():
    bad = monitored = 0
    for path in sys.argv[1:]:
        objects = [item for item in yaml.safe_load_all(Path(path).read_text()) if item]
        assert len(of(objects, "Deployment")) == 4 and of(objects, "Job"), "the chart has other parts now"
        monitored += bool(of(objects, "PrometheusRule") and boards(objects))
        lay_out_gateway(Path(path).with_suffix(".gateway"), objects)
        wrongs = list(check(objects))
        # "owner": as it was before there were logins
        if Path(path).stem != "owner":
            wrongs += check_logins(objects)
        for wrong in wrongs:
            bad += 1
            print(f"{Path(path).stem}: {wrong}")
    assert monitored, "no values file asks for alerts and dashboard any more"
    if not bad:
        print(f"the chart is right for Kubernetes {VERSIONS[0]} to {VERSIONS[-1]}: {', '.join(Path(path).stem for path in sys.argv[1:])}")
    sys.exit(bool(bad))


main()
