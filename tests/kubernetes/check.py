"""Checks the Helm chart, and what `kubectl apply -k deploy/kubernetes` would apply:

    check.py all [RECEIVER]             all checks
    check.py routes STRATEGY ADDRESS    prints the Alertmanager config that the operator makes with this strategy; the
                                        receiver is at ADDRESS
    check.py objects FILE               checks YAML of a guide
    check.py secrets CREATED RENDERED   checks that RENDERED refers to no Secret, or key of one, that CREATED lacks

Renders the chart with each file of deploy/helm/values, and checks the objects against the schemas of Kubernetes and of the
Prometheus operator. RECEIVER is the program prompt-rollback: with it, each rendered config is checked too.
`scripts/install-deps test` installs what this needs; run it with target/tools/bin/python.
"""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.parse

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1, v1alpha1

# PyYAML has no value for a bare `=`, which kustomize writes for "=".
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value)

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/tools/bin"
CHART = ROOT / "deploy/helm/prompt-rollback"
NAMESPACE = "prompts"
OPERATOR_KINDS = {
    "ServiceMonitor": v1.ServiceMonitor,
    "PrometheusRule": v1.PrometheusRule,
    "AlertmanagerConfig": v1alpha1.AlertmanagerConfig,
}
SCHEMAS = {**OPERATOR_KINDS, "PodMonitor": v1.PodMonitor}
KUBERNETES = ["1.27", "1.31", "1.35"]
RULE_FILES = ["baselines", "alerts", "heartbeat", "self"]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def helm(*arguments):
    return run(TOOLS / "helm", *arguments)


def render(values, *settings):
    text = helm("template", "prompt-rollback", CHART, "--namespace", NAMESPACE, "--values", values, *settings)
    return text, [one for one in yaml.safe_load_all(text) if one]


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def only(objects, kind):
    (found,) = of_kind(objects, kind)
    return found


def is_subset(part, whole):
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and is_subset(value, whole[key]) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(is_subset, part, whole))
    return part == whole


def check_schema(one):
    name = f"{one['kind']} {one['metadata']['name']}"
    model = SCHEMAS.get(one["kind"])
    if model is None:
        for version in KUBERNETES:
            kubernetes_validate.validate(one, version, strict=True)
        return
    read = json.loads(model.model_validate(one).model_dump_json(by_alias=True, exclude_unset=True))
    # Fields that the schema does not have are lost on the way.
    assert is_subset(one, read), f"{name}: a field is unknown to the operator\n{one}\n{read}"


def check_pod(deployment):
    """What the Pod Security Standard `restricted` wants, and more."""
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532  # as in the Dockerfile
    assert "USER 65532:65532" in (ROOT / "Dockerfile").read_text()
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container["readinessProbe"]["httpGet"]["path"] == "/-/ready"
    shutdown = tomllib.loads((ROOT / "config/prompt-rollback.toml").read_text())["server"]["shutdown_timeout"]
    assert pod["terminationGracePeriodSeconds"] > int(shutdown.removesuffix("s"))
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert {one["topologyKey"] for one in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    mounted = {one["name"] for one in pod["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == mounted, mounted


def environment(deployment):
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"]}


def certificate(key, file, *options):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=prompt-rollback", "-keyout", key, "-out", file, *options)


def check_config(objects, receiver):
    """The receiver itself takes the config, with the files of the Secret somewhere else."""
    config = next(one for one in of_kind(objects, "ConfigMap") if "prompt-rollback.toml" in one["data"])
    with tempfile.TemporaryDirectory() as directory:
        here = pathlib.Path(directory)

        def moved(text):
            for path in re.findall(r"/(?:run/secrets|etc/ssl)/[\w./-]+", text):
                assert any(path.startswith(f"{mount}/") for mount in mounts), f"{path} is not mounted"
                file = here / path.removeprefix("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                if path.endswith((".crt", ".pem")):
                    certificate(file.with_suffix(".key"), file)
                elif not file.exists():
                    file.write_text(f"{file.name}-0123456789abcdef")
            return re.sub(r"/(run/secrets|etc/ssl)/", rf"{here}/\1/", text)

        deployment = only(objects, "Deployment")
        mounts = [one["mountPath"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
        values = environment(deployment)
        text = config["data"]["prompt-rollback.toml"]
        # It replaces the public CAs.
        assert "SSL_CERT_FILE" not in values or "[slack]" not in text, "Slack's certificate is of a public CA"
        variables = {name: moved(value) for name, value in values.items()}
        (here / "prompt-rollback.toml").write_text(moved(text))
        told = run(receiver, "check", "--config", here / "prompt-rollback.toml", env={"PATH": os.environ["PATH"], **variables})
        assert "config: ok" in told, told


def check_rules(objects, values):
    """The rules are those of alert-rules/, but for the namespace, an interval and the address of the runbooks."""
    rules = {one["metadata"]["name"].removeprefix("prompt-rollback-"): one for one in of_kind(objects, "PrometheusRule")}
    operator = values.get("operator", {})
    settings = operator.get("rules", {})
    sources = settings.get("sources", ["native"])
    assert set(rules) == {*sources, *RULE_FILES}, set(rules)
    with tempfile.TemporaryDirectory() as directory:
        for name, rule in rules.items():
            text = (ROOT / f"alert-rules/{name}.yml").read_text()
            if url := settings.get("runbooksUrl"):
                text = re.sub(r"\{\{ with \$externalLabels.runbooks_url }}\{\{ \. }}(.*?)\{\{ end }}", url + r"\1", text)
                assert "externalLabels" not in text
            expected = yaml.safe_load(text)["groups"]
            for group in expected:
                group.setdefault("interval", settings.get("interval", "5s"))
                for one in group["rules"]:
                    if "alert" in one and operator.get("alertNamespaceLabel", True):
                        one.setdefault("labels", {})["namespace"] = NAMESPACE
            assert rule["spec"]["groups"] == expected, name
            file = pathlib.Path(directory) / f"{name}.yml"
            file.write_text(yaml.safe_dump(rule["spec"]))
            run("promtool", "check", "rules", file)
        alerts = yaml.safe_load((pathlib.Path(directory) / "alerts.yml").read_text())["groups"]
        assert sum("alert" in one for group in alerts for one in group["rules"]) >= 9


SNAKE = {
    "groupBy": "group_by", "groupWait": "group_wait", "groupInterval": "group_interval", "repeatInterval": "repeat_interval",
}  # fmt: skip


def alertmanager_config(configs, strategy):
    """The Alertmanager configuration that the operator makes of `configs` (pkg/alertmanager/amcfg.go of 0.93): their routes
    come first and continue, names of receivers get a prefix, and the strategy OnNamespace adds a matcher. The rest is as with
    kube-prometheus-stack, where `own` is the receiver of the user's root route."""

    def matcher(one):
        return f'{one["name"]}{one["matchType"]}"{one["value"]}"'

    def route(one, prefix):
        made = {SNAKE[key]: value for key, value in one.items() if key in SNAKE}
        made["receiver"] = prefix + one["receiver"]
        if "matchers" in one:
            made["matchers"] = [matcher(each) for each in one["matchers"]]
        if one.get("continue"):
            made["continue"] = True
        if "routes" in one:
            made["routes"] = [route(each, prefix) for each in one["routes"]]
        return made

    first, receivers = [], [{"name": "own"}, {"name": "null"}]
    for config in sorted(configs, key=lambda one: one["metadata"]["name"]):
        prefix = f"{config['metadata']['namespace']}/{config['metadata']['name']}/"
        made = route(config["spec"]["route"], prefix)
        if strategy == "OnNamespace":
            made.setdefault("matchers", []).append(f'namespace="{config["metadata"]["namespace"]}"')
        first.append({**made, "continue": True})
        for receiver in config["spec"]["receivers"]:
            webhooks = [webhook(one) for one in receiver.get("webhookConfigs", [])]
            receivers.append({"name": prefix + receiver["name"], **({"webhook_configs": webhooks} if webhooks else {})})
    watchdog = {"receiver": "null", "matchers": ['alertname="Watchdog"']}
    return {"route": {"receiver": "own", "group_by": ["namespace"], "routes": [*first, watchdog]}, "receivers": receivers}


def webhook(one):
    http = one["httpConfig"]
    return {
        "url": one["url"],
        "send_resolved": one["sendResolved"],
        "max_alerts": one["maxAlerts"],
        "http_config": {
            "follow_redirects": http["followRedirects"],
            "authorization": {"type": http["authorization"]["type"], "credentials_file": "webhook_token"},
        },
    }


def routes_of(alertmanager, labels):
    """The receivers that an alert with each of these labels reaches, without the prefixes of the operator."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(alertmanager, file)
        file.flush()
        run("amtool", "check-config", file.name)
        found = [run("amtool", "config", "routes", "test", f"--config.file={file.name}", *one).strip() for one in labels]
    return [",".join(one.rsplit("/", 1)[-1] for one in each.split(",")) for each in found]


def check_alertmanager(configs, has_namespace_label, has_pager):
    """Each alert reaches the receivers that it reaches with config/alertmanager.yml; all others go the user's own way."""
    table = [line.split() for line in (ROOT / "tests/configs/routes").read_text().splitlines() if line and line[0] != "#"]
    assert len(table) > 15

    def expected(receivers, labels):
        reached = receivers.replace("default", "own").split(",")
        if not has_pager:
            reached = [one for one in reached if one != "pager"]
            # a drill that nobody started
            reached = reached or ["nobody" if "alertname=PromptRollbackDrill" in labels else "own"]
        return ",".join(reached)

    for strategy in ["OnNamespace", "None"] if has_namespace_label else ["None"]:
        made = alertmanager_config(configs, strategy)
        label = [f"namespace={NAMESPACE}"] if has_namespace_label else []
        found = routes_of(made, [labels + label for _, *labels in table])
        for (receivers, *labels), reached in zip(table, found):
            wanted = expected(receivers, labels)
            assert reached == wanted, f"{strategy}: an alert with {labels} should go to {wanted}, not to {reached}"

    # The trap: with the operator's default, an alert without the label never gets here. Neither does another namespace's.
    made = alertmanager_config(configs, "OnNamespace")
    critical = ["alertname=PromptErrorRateCritical", "prompt=support", "version=v2", "severity=critical"]
    assert routes_of(made, [critical, [*critical, "namespace=other"]]) == ["own", "own"]

    # The same routes and times as in the file for plain hosts.
    shipped = yaml.safe_load((ROOT / "config/alertmanager.yml").read_text())
    # The operator's own routes get the notices.
    heartbeat, _notices, own, *prompts = shipped["route"]["routes"]
    own_config, prompt_config = [one for one in made["route"]["routes"] if one["receiver"] != "null"][::-1]
    times = ["group_wait", "group_interval", "repeat_interval"]

    def unprefixed(one):
        return {**one, "receiver": one["receiver"].rsplit("/", 1)[-1]}

    assert list(map(unprefixed, prompt_config["routes"])) == (prompts if has_pager else prompts[:-1])
    assert unprefixed(own_config["routes"][0]) == heartbeat
    assert [own_config[one] for one in times] == [own[one] for one in times]
    assert [own_config["routes"][1][one] for one in [*times, "group_by"]] == [prompts[0][one] for one in [*times, "group_by"]]
    theirs = next(one for one in shipped["receivers"] if one["name"] == "prompt-rollback")["webhook_configs"]
    for receiver in made["receivers"]:
        if receiver["name"].endswith("/prompt-rollback"):
            (ours,) = receiver["webhook_configs"]
            assert {**ours, "url": 0} == {**theirs[0], "url": 0}, ours
            assert re.fullmatch(rf"https?://prompt-rollback\.{NAMESPACE}\.svc:8000/webhooks/alertmanager", ours["url"]), ours["url"]


def check_wiring(objects, values):
    """Names, ports and labels that must agree between objects."""
    deployment, service = only(objects, "Deployment"), only(objects, "Service")
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"http": 8000}
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]
    # The command line in a pod reaches the receiver beside it. A certificate is for the name of the Service.
    scheme = "https" if "tls" in values else "http"
    url = urllib.parse.urlsplit(environment(deployment).get("PROMPT_ROLLBACK_URL", "http://127.0.0.1:8000"))
    assert (url.scheme, url.port) == (scheme, 8000), url
    aliases = {name: one["ip"] for one in pod["spec"].get("hostAliases", []) for name in one["hostnames"]}
    assert aliases.get(url.hostname, url.hostname) == "127.0.0.1", url
    if scheme == "https":
        assert url.hostname == f"{service['metadata']['name']}.{NAMESPACE}.svc", url
        assert environment(deployment)["PROMPT_ROLLBACK_CA_FILE"] == "/run/secrets/tls/ca.crt"
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert len(budgets) == (1 if deployment["spec"]["replicas"] > 1 else 0)
    # Pods that are not ready because Redis is down must not keep a node from being drained.
    assert all(one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" for one in budgets)
    for one in of_kind(objects, "ServiceMonitor"):
        assert one["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        # self.yml looks for this job
        assert service["metadata"]["labels"][one["spec"]["jobLabel"]] == "prompt-rollback"
        (endpoint,) = one["spec"]["endpoints"]
        assert endpoint["port"] == "http" and endpoint["honorLabels"] is True and endpoint["path"] == "/metrics"
        assert endpoint.get("scheme", "http") == scheme
    for one in of_kind(objects, "NetworkPolicy"):
        assert one["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        assert set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        allowed = {each["port"] for each in one["spec"]["egress"][0]["ports"]}
        variables = environment(deployment)
        for url in [variables["PROMPT_ROLLBACK_PROMETHEUS__URL"], *variables["PROMPT_ROLLBACK_ALERTMANAGER__URLS"].split(",")]:
            assert int(url.rsplit(":", 1)[1]) in allowed, f"the network policy keeps the receiver from {url}"
    for one in of_kind(objects, "ConfigMap"):
        if dashboard := one["data"].get("prompt-rollback.json"):
            assert json.loads(dashboard) == json.loads((ROOT / "config/grafana/dashboards/prompt-rollback.json").read_text())
            assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
    wanted = values.get("operator", {}).get("labels", {})
    for one in objects:
        if one["kind"] in OPERATOR_KINDS:
            assert wanted.items() <= one["metadata"]["labels"].items(), one["metadata"]
    # This variable adds one label to those of the config; a variable of the whole table would replace them.
    assert "PROMPT_ROLLBACK_ALERTMANAGER__LABELS" not in environment(deployment)
    label = environment(deployment).get("PROMPT_ROLLBACK_ALERTMANAGER__LABELS__NAMESPACE")
    operator = values.get("operator", {})
    labelled = operator.get("enabled", True) and operator.get("alertNamespaceLabel", True)
    assert label == (NAMESPACE if labelled else None)


def check_values(path, receiver):
    values = yaml.safe_load(path.read_text())
    helm("lint", "--strict", "--quiet", CHART, "--values", path)
    text, objects = render(path)
    for one in objects:
        assert one["metadata"]["namespace"] == NAMESPACE, one["metadata"]
        check_schema(one)
    # Values end up in the cluster's records of releases: secrets are made by people.
    assert not of_kind(objects, "Secret")
    check_pod(only(objects, "Deployment"))
    check_wiring(objects, values)
    if values.get("operator", {}).get("enabled", True):
        check_rules(objects, values)
        operator = values.get("operator", {})
        check_alertmanager(
            of_kind(objects, "AlertmanagerConfig"),
            operator.get("alertNamespaceLabel", True),
            bool(operator.get("alertmanagerConfig", {}).get("pager")),
        )
    else:
        assert not {one["kind"] for one in objects} & set(OPERATOR_KINDS)
    if receiver:
        check_config(objects, receiver)
    # Another name of the release keeps all names different and valid, and the job the same.
    for release, prefix in {
        "blue": "blue-prompt-rollback",
        "team.a": "team-a-prompt-rollback",
        "prompt-rollback.b": "prompt-rollback-b",
        "2.prompt-rollback": "r2-prompt-rollback",
    }.items():
        other = yaml.safe_load_all(helm("template", release, CHART, "--namespace", NAMESPACE, "--values", path))
        for one in filter(None, other):
            name = one["metadata"]["name"]
            assert name.startswith(prefix), name
            assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name), f"{release}: {name} is no DNS label"
    print(f"{path.stem}: {len(objects)} objects: ok")


def check_names():
    """Names that YAML reads as numbers stay text."""
    names = {"secret.name": "2026", "tls.secretName": "1e3"}
    settings = [f"--set-string={key}={name}" for key, name in names.items()]
    for one in filter(None, yaml.safe_load_all(helm("template", "0x10", CHART, "--namespace", "123", *settings))):
        check_schema(one)
        assert one["metadata"]["namespace"] == "123" and one["metadata"]["name"].startswith("r0x10-prompt-rollback"), one["metadata"]
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "0x10", one["metadata"]
        if one["kind"] == "Deployment":
            secrets = [volume["secret"]["secretName"] for volume in one["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
            assert secrets == list(names.values()), secrets
    print("names that look like numbers: ok")


def check_kustomize():
    """In a copy: the generated file is not part of the repository."""
    with tempfile.TemporaryDirectory() as directory:
        copied = pathlib.Path(directory)
        for part in ["alert-rules", "config", "deploy", "scripts"]:
            run("cp", "-r", ROOT / part, copied)
        (copied / "deploy/kubernetes/generated.yaml").unlink(missing_ok=True)
        (copied / "target/tools").mkdir(parents=True)
        (copied / "target/tools/bin").symlink_to(TOOLS)
        run(copied / "scripts/kubernetes")
        objects = list(yaml.safe_load_all(run(TOOLS / "kubectl", "kustomize", copied / "deploy/kubernetes")))
        kinds = sorted(one["kind"] for one in objects)
        for one in objects:
            check_schema(one)
            assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == "prompt-rollback"
        assert only(objects, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap", *OPERATOR_KINDS} <= set(kinds), kinds
        assert only(objects, "Deployment")["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kustomize"
        # `kubectl apply` keeps the object in an annotation, which may have 256 KiB.
        for one in objects:
            assert len(json.dumps(one)) < 200_000, one["metadata"]["name"]
        helm("package", "--destination", copied, copied / "deploy/helm/prompt-rollback")
        (package,) = copied.glob("prompt-rollback-*.tgz")
        # A packed chart holds the rules and the dashboard, not links to them.
        packed = list(yaml.safe_load_all(helm("template", "x", package)))
        assert len(of_kind(filter(None, packed), "PrometheusRule")) == 5
    print(f"kubectl kustomize: {len(objects)} objects: ok")


def check_versions():
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    assert f"\n## {version} (" in (ROOT / "CHANGELOG.md").read_text(), f"CHANGELOG.md has no {version}"
    assert f'image.version="{version}"' in (ROOT / "Dockerfile").read_text(), "the version in the Dockerfile"
    rust = re.search(r'^rust-version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    for page in ["README.md", "CONTRIBUTING.md", "crates/reader/README.md"]:
        assert re.findall(r"Rust (\d[.\d]*\d)", (ROOT / page).read_text()) == [rust], f"{page} names another Rust than {rust}"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == version, chart


def check_config_schema():
    """The schema for editors takes what we ship and what the documentation shows, and no misspelled key."""
    validator = jsonschema.Draft7Validator(json.loads((ROOT / "config/prompt-rollback.schema.json").read_text()))
    texts = [path.read_text() for path in [ROOT / "config/prompt-rollback.toml", ROOT / "packaging/deb/prompt-rollback.toml"]]
    for page in (ROOT / "docs").rglob("*.md"):
        texts += re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(texts) > 6, len(texts)
    for text in texts:
        validator.validate(tomllib.loads(text))
    misspelled = ['[guards]\nmode = "dry_run"', '[redis]\nmode = "Cluster"', '[tokens.ci]\nroles = ["root"]', '[log]\nformat = "yaml"']
    for wrong in ['[server]\nlisten_address = "x"', "[redis]\nport = 1", '[guards]\ncooldown = "30"', "[gates]\nstaging = 1", "[other]", *misspelled]:
        assert not validator.is_valid(tomllib.loads(wrong)), wrong


def check_workflow():
    """The forge runs what a developer runs: targets of the Makefile, and nothing else. What `make dist` builds becomes a release."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    *built, release = workflow["jobs"]["dist"]["steps"]
    assert built[-1] == {"run": "make dist"}, built
    assert release["run"].startswith('gh release create "$GITHUB_REF_NAME" target/dist/* '), release
    # The build of other people's code never sees a token that may write.
    assert workflow["permissions"] == {"contents": "read"} and built[0]["with"] == {"persist-credentials": False}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if step == release:
                continue
            assert "env" not in step, step
            if "uses" in step:
                assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", step["uses"]), step
            else:
                command, target = step["run"].split()
                assert command == "make" and target in targets, step


def check_password_for_alertmanager():
    """What docs/security.md adds to config/prometheus.yml and docker-compose.yml fits what is there."""
    page = (ROOT / "docs/security.md").read_text()
    login, override = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[1:])
    prometheus = yaml.safe_load((ROOT / "config/prometheus.yml").read_text())
    clients = [*prometheus["alerting"]["alertmanagers"], *(one for one in prometheus["scrape_configs"] if one["job_name"] == "alertmanager")]
    assert len(clients) == 2, clients
    for one in clients:
        one.update(login)
    with tempfile.TemporaryDirectory() as directory:
        here = pathlib.Path(directory)
        (here / "prometheus.yml").write_text(yaml.safe_dump(prometheus))
        (here / "rules").symlink_to(ROOT / "alert-rules")
        (here / login["basic_auth"]["password_file"]).write_text("x")
        run("promtool", "check", "config", here / "prometheus.yml")
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert set(override["services"]) <= set(compose["services"])
    # Compose replaces this list, and appends the others.
    alertmanager = override["services"]["alertmanager"]
    assert alertmanager["command"][:-1] == compose["services"]["alertmanager"]["command"], alertmanager
    (mount,) = alertmanager["volumes"]
    assert alertmanager["command"][-1] == f"--web.config.file={mount.split(':')[1]}"
    login_of_receiver = override["services"]["receiver"]["environment"]
    assert login_of_receiver["PROMPT_ROLLBACK_ALERTMANAGER__USERNAME"] == login["basic_auth"]["username"]
    (secret,) = override["secrets"]
    assert login_of_receiver["PROMPT_ROLLBACK_ALERTMANAGER__PASSWORD_FILE"] == f"/run/secrets/{secret}"
    assert override["services"]["prometheus"]["secrets"] == [
        {"source": secret, "target": f"/etc/prometheus/{login['basic_auth']['password_file']}"}
    ]
    print("a password for Alertmanager: ok")


def check_refused():
    """A value that the chart does not know is an error."""
    for setting in [
        'operater={"enabled": true}',
        'operator.rules.source="otel"',
        'operator.rules.sources=["natve"]',
        'operator.rules.sources=["otel", "otel"]',
        'redis.pasword="x"',
        'replicas="many"',
        'podAnnotations={"team": 7}',
        # The chart adds the name; these are misspelled.
        'operator.alertmanagerConfig.pager={"name": "pager"}',
        'operator.alertmanagerConfig.pager={"pagerduty_configs": []}',
        # A password in an address ends up in the Deployment.
        'redis.url="redis://receiver:password@redis:6379"',
        'prometheus.url="http://name:password@prometheus:9090"',
        'alertmanager.urls=["http://name:password@alertmanager:9093"]',
        # To Kubernetes these mean everybody.
        "networkPolicy.from=[]",
        "networkPolicy.from=[{}]",
        "networkPolicy.from=null",
    ]:
        done = subprocess.run([TOOLS / "helm", "template", "x", CHART, "--set-json", setting], capture_output=True, text=True)
        assert done.returncode != 0, f"--set-json {setting} is accepted"
        assert "schema" in done.stderr, done.stderr
    print("wrong values are refused: ok")


def print_routes(strategy, address):
    _, objects = render(ROOT / "deploy/helm/values/defaults.yaml")
    made = alertmanager_config(of_kind(objects, "AlertmanagerConfig"), strategy)
    print(yaml.safe_dump(made).replace(f"prompt-rollback.{NAMESPACE}.svc:8000", address))


def check_objects(path):
    """YAML of a guide: objects, or values of kube-prometheus-stack, which passes them to the operator's objects."""
    shipped = yaml.safe_load((ROOT / "config/prometheus.yml").read_text())["scrape_configs"]
    keeps = next(one for one in shipped if one["job_name"] == "prompt-servers")["metric_relabel_configs"]
    for one in filter(None, yaml.safe_load_all(pathlib.Path(path).read_text())):
        if "kind" in one:
            check_schema(one)
            for endpoint in one["spec"].get("podMetricsEndpoints", []):
                # The same as in the file for plain hosts, but for the names of the prompts.
                ours = [{**each, "regex": each["regex"].replace("|customer-support|team-a/.*", ".*")} for each in endpoint["metricRelabelings"]]
                assert [(each["sourceLabels"], each["regex"]) for each in ours] == [(each["source_labels"], each["regex"]) for each in keeps]
            continue
        assert set(one) == {"prometheus", "alertmanager"}, set(one)
        for kind, model, spec in [
            ("Prometheus", v1.Prometheus, one["prometheus"]["prometheusSpec"]["additionalConfig"]),
            ("Alertmanager", v1.Alertmanager, one["alertmanager"]["alertmanagerSpec"]),
        ]:
            written = {"apiVersion": "monitoring.coreos.com/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}
            read = json.loads(model.model_validate(written).model_dump_json(by_alias=True, exclude_unset=True))
            assert is_subset(written, read), f"{kind}: a field is unknown to the operator\n{written}\n{read}"
        routes = one["alertmanager"]["config"]["route"]["routes"]
        made = {"route": {"receiver": "own", "routes": routes}, "receivers": [{"name": "own"}, {"name": "null"}]}
        labels = [["alertname=PromptRollbackHeartbeat"], ["alertname=Watchdog"], ["alertname=PromptRollbackEscalation"]]
        assert routes_of(made, labels) == ["null", "null", "own"]


def check_secrets(created, rendered):
    """A guide creates each Secret that its chart refers to, with all keys."""
    secrets = {}
    for one in filter(None, yaml.safe_load_all(pathlib.Path(created).read_text())):
        if one["kind"] == "Secret":
            secrets[one["metadata"]["name"]] = {name: base64.b64decode(value) for name, value in one["data"].items()}
    objects = list(filter(None, yaml.safe_load_all(pathlib.Path(rendered).read_text())))
    deployment = only(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    mounts = {one["name"]: one["mountPath"] for one in pod["containers"][0]["volumeMounts"]}
    from_receiver = {
        (volume["secret"]["secretName"], value.removeprefix(f"{mounts[volume['name']]}/"))
        for volume in pod["volumes"]
        for value in environment(deployment).values()
        if "secret" in volume and value.startswith(f"{mounts[volume['name']]}/")
    }

    def references(part):
        if isinstance(part, dict):
            if set(part) == {"name", "key"}:
                yield part["name"], part["key"]
            for each in part.values():
                yield from references(each)
        elif isinstance(part, list):
            for each in part:
                yield from references(each)

    from_operator = set(references(of_kind(objects, "AlertmanagerConfig")))
    assert len(from_receiver) >= 3 and from_operator, (from_receiver, from_operator)
    for name, key in from_receiver | from_operator:
        assert key in secrets.get(name, {}), f"nobody creates the key {key} of the Secret {name}"
    # The receiver trims what it reads, the operator does not.
    for name, key in from_operator:
        assert secrets[name][key].strip() == secrets[name][key], f"{key} of {name} ends with a line feed"


def check_all(receiver=None):
    paths = sorted((ROOT / "deploy/helm/values").glob("*.yaml"))
    assert len(paths) >= 5, paths
    check_versions()
    check_workflow()
    check_config_schema()
    for path in paths:
        check_values(path, receiver)
    check_names()
    check_kustomize()
    check_password_for_alertmanager()
    check_refused()


match sys.argv[1:]:
    case ["all"]:
        check_all()
    case ["all", receiver]:
        check_all(pathlib.Path(receiver).resolve())
    case ["objects", path]:
        check_objects(path)
    case ["secrets", created, rendered]:
        check_secrets(created, rendered)
    case ["routes", strategy, address]:
        print_routes(strategy, address)
    case _:
        sys.exit(__doc__)
