//! What to do with the files.

use std::path::Path;

use super::questions::Answers;
use crate::cli::args::Platform;

const SYSTEM_USER: &str = include_str!("../../../packaging/sysusers.d/prompt-rollback.conf");

pub(super) fn steps(answers: &Answers, dir: &Path) -> String {
    let dir = shell(&dir.display().to_string());
    let redis = match answers.redis.strip_prefix("redis+unix://") {
        Some(socket) => format!("-s {}", shell(socket.split('?').next().unwrap_or_default())),
        None => format!("-u {}", shell(&answers.redis)),
    };
    let (release, namespace) = answers.receiver.service().unwrap_or(("prompt-rollback", "prompts"));
    let (load, login) = match answers.platform {
        Platform::Systemd => (
            format!(
                "grep -v '^user default' {dir}/users.acl | while read -r _ rules; do (set -f; redis-cli {redis} ACL SETUSER $rules); done"
            ),
            "read -rsp 'password: ' REDISCLI_AUTH; export REDISCLI_AUTH   # then the line above, with redis-cli --user ADMIN"
                .to_owned(),
        ),
        // from a pod in the receiver's namespace, which reaches Redis by the address that the receiver uses
        Platform::Kubernetes => {
            let users = format!("sed -n '/^user default/d; s/^user /ACL SETUSER /p' {dir}/users.acl");
            let run = format!(
                "kubectl -n {namespace} run redis-users --rm -i --quiet --restart=Never --image=redis:8 -- redis-cli {redis}"
            );
            let login = format!(
                "read -rsp 'password: ' p; (printf 'AUTH ADMIN %s\\n' \"$p\"; {users}) | {run}"
            );
            (format!("kubectl create namespace {namespace}\n\x20    {users} | {run}"), login)
        }
    };
    let mut users = format!(
        "1. Redis: load the two users. Add their lines from users.acl to Redis' ACL file or, if it has none, to redis.conf itself.\n\
         \x20  A new `aclfile` makes Redis ignore `requirepass`. After a restart of Redis, run `check --connect` again (see below):\n\n\
         \x20    {load}\n\n\
         \x20  If Redis answers `ERR Protocol error: unauthenticated multibulk length`, log in as an administrator, here ADMIN:\n\n\
         \x20    {login}\n",
    );
    if answers.redis.starts_with("rediss:") {
        users.push_str(
            "\n   If a private CA has signed Redis' certificate, give redis-cli --cacert FILE, and set redis.tls_ca_file.\n",
        );
    }
    if !answers.redis.starts_with("redis+unix:") {
        users.push_str(
            "\n   With Sentinel or Cluster, load the users on every node, give `receiver` +role and, with Cluster, also +cluster|nodes,\n\
             \x20  and set the keys that docs/operations.md names.\n",
        );
    }
    let url = answers.receiver.url();
    let rest = match answers.platform {
        Platform::Systemd => {
            let system_user = SYSTEM_USER.lines().find(|line| line.starts_with("u ")).unwrap_or_default();
            let local = format!("http://127.0.0.1:{}", answers.receiver.port);
            let of_socket = "     sudo usermod -aG redis prompt-rollback   # the group of Redis' socket\n";
            let socket = if answers.redis.starts_with("redis+unix:") { of_socket } else { "" };
            let quoted_url = shell(&url);
            let own = if answers.receiver.listen().ip().is_loopback() { url.as_str() } else { local.as_str() };
            format!(
                "2. Check the config, every connection and every permission:\n\n\
                 \x20    prompt-rollback check --config {dir}/prompt-rollback.toml --connect\n\n\
                 3. Start the receiver, which listens at {}. With the Debian package, omit the first three commands:\n\n\
                 \x20    echo '{system_user}' | sudo systemd-sysusers -\n\
                 \x20    sudo install -m 0644 -D -t /etc/systemd/system {dir}/prompt-rollback.service && sudo install -D -t /usr/bin \"$(command -v prompt-rollback)\"\n\
                 \x20    sudo install -d -m 0750 -g prompt-rollback /etc/prompt-rollback\n\
                 \x20    (cd {dir} && sudo install -m 0600 -o prompt-rollback -t /etc/prompt-rollback prompt-rollback.toml webhook_token api_token redis_password)\n\
                 {socket}\x20    sudo systemctl enable --now prompt-rollback\n\n\
                 4. Prometheus: start it with --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s, load alert-rules/,\n\
                 \x20  and scrape the receiver and your prompt servers: docs/your-stack/plain-hosts.md\n\n\
                 5. Alertmanager reaches the receiver at {url}. The first command puts the token beside Alertmanager's config,\n\
                 \x20  which is /etc/prometheus/alertmanager.yml in Debian; the second prints the missing lines, and the third adds them.\n\
                 \x20  If you have no config yet, use {dir}/alertmanager.yml. Then reload Alertmanager:\n\n\
                 \x20    sudo install -m 0640 -g prometheus {dir}/webhook_token /etc/prometheus/webhook_token\n\
                 \x20    prompt-rollback check --config {dir}/prompt-rollback.toml --receiver-url {quoted_url} --alertmanager-config /etc/prometheus/alertmanager.yml | tee {dir}/findings\n\
                 \x20    sudo patch /etc/prometheus/alertmanager.yml {dir}/findings\n\n\
                 6. Run a drill:\n\n\
                 \x20    export PROMPT_ROLLBACK_URL={own} PROMPT_ROLLBACK_TOKEN_FILE={dir}/api_token\n\
                 \x20    prompt-rollback register customer-support v1.9.0 --known-good --first\n\
                 \x20    prompt-rollback drill customer-support\n\n\
                 Prompt servers log in to Redis as prompt-server, with the password in {dir}/prompt_server_password.\n",
                answers.receiver.listen(),
            )
        }
        Platform::Kubernetes => {
            // the operator copies the token into Alertmanager's config, where a line feed would make each request invalid
            let exec = format!("kubectl -n {namespace} exec deploy/{release} -- prompt-rollback");
            format!(
                "2. Create the Secret from these files:\n\n\
                 \x20    (cd {dir} && kubectl -n {namespace} create secret generic prompt-rollback --from-file=webhook_token=<(tr -d '\\n' <webhook_token) --from-file=api_token --from-file=redis_password)\n\n\
                 3. In a checkout of the repository, with image.repository and operator.labels set in values.yaml:\n\n\
                 \x20    helm upgrade --install {release} deploy/helm/prompt-rollback --namespace {namespace} --values {dir}/values.yaml\n\
                 \x20    {exec} check --config /etc/prompt-rollback/prompt-rollback.toml --connect\n\n\
                 4. Prometheus: set --rules.alert.resend-delay=5s and --rules.alert.for-grace-period=10s. Alertmanager reaches the\n\
                 \x20  receiver at {url}. With the Prometheus operator, the chart has added the routes:\n\
                 \x20  docs/your-stack/kubernetes.md explains the flags, the routes and the namespace trap. Otherwise merge\n\
                 \x20  {dir}/alertmanager.yml into yours.\n\n\
                 5. Run a drill:\n\n\
                 \x20    {exec} register customer-support v1.9.0 --known-good --first --operator \"$USER\"\n\
                 \x20    {exec} drill customer-support --operator \"$USER\"\n\n\
                 Prompt servers log in to Redis as prompt-server, with the password in {dir}/prompt_server_password.\n"
            )
        }
    };
    format!("\n{users}\n{rest}")
}

/// A word of a shell.
fn shell(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/:._-+=,@".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
