//! Which containers of docker-compose.yml can reach each other.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::dockerfile::file;

/// The parts of a block that is indented by two spaces more than its heading: each name, and the lines below it.
fn block(text: &str, heading: &str) -> BTreeMap<String, Vec<String>> {
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = String::new();
    for line in lines.take_while(|line| line.is_empty() || line.starts_with([' ', '#'])) {
        match line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#'])) {
            Some(name) => {
                last = name.trim_end_matches(':').to_owned();
                found.insert(last.clone(), Vec::new());
            }
            None => found.entry(last.clone()).or_default().push(line.trim().to_owned()),
        }
    }
    found.remove("");
    found
}

#[test]
fn only_who_must_speak_to_each_other_share_a_network() -> Result<()> {
    let text = file("docker-compose.yml")?;
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, lines) in block(&text, "services:") {
        let networks = lines.iter().find_map(|line| line.strip_prefix("networks: [")?.strip_suffix(']'));
        let networks = networks.with_context(|| format!("{service} is in the default network, with all others"))?;
        for network in networks.split(", ") {
            members.entry(network.to_owned()).or_default().push(service.clone());
        }
    }
    let mut pairs = BTreeSet::new();
    for services in members.values() {
        for (at, one) in services.iter().enumerate() {
            pairs.extend(services[at + 1..].iter().map(|other| format!("{one} {other}")));
        }
    }
    let expected = [
        "alertmanager prometheus",
        "alertmanager receiver",
        "first-version receiver",
        "grafana prometheus",
        "prometheus prompt-server",
        "prometheus receiver",
        "prompt-server redis",
        "receiver redis",
    ];
    assert_eq!(pairs, expected.map(str::to_owned).into());

    let networks = block(&text, "networks:");
    assert_eq!(networks.keys().collect::<Vec<_>>(), members.keys().collect::<Vec<_>>());
    for (network, services) in members.iter().filter(|(_, services)| services.iter().any(|one| one == "redis")) {
        let internal = networks[network].iter().any(|line| line == "internal: true");
        assert!(internal, "{network}: nothing outside reaches {services:?}, or is reached by it");
    }
    Ok(())
}
