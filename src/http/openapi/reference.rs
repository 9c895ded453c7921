//! `docs/reference/api.md`: the description for people.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::describe::{ERRORS, document};
use super::operations::{Auth, OPERATIONS, Operation};
use crate::http::route::TABLE;

const FILE: &str = "docs/reference/api.md";
const SCHEMAS: &str = "#/components/schemas/";
const WIDTH: usize = 150;

const INTRODUCTION: &str = "\
# HTTP API

This page lists every route of the receiver, with its parameters, bodies and status codes. It is generated from the OpenAPI 3.1
[document](../../src/http/openapi/openapi.json), which the receiver also serves at `/openapi.json`. Most routes have a [command](cli.md).

The address is `server.listen`. `page.listen` and `metrics.listen` move the page and `/metrics` to addresses of their own. A `/` in the name of a prompt
is `%2F` in a path: `GET /api/prompts/team%2Frefund`. [Names](../names.md) explains other characters. Bodies are JSON, unless the route says otherwise.
[Errors](errors.md) lists the error codes.
";

/// Text as paragraphs that no editor has to wrap.
fn wrapped(text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines = lines + &line + "\n";
            line.clear();
        }
        line = if line.is_empty() { word.to_owned() } else { line + " " + word };
    }
    lines + &line + "\n"
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', r"\|")
}

fn text_of(value: &Value) -> String {
    cell(value.as_str().unwrap_or_default())
}

fn name_of(reference: &Value) -> Option<&str> {
    reference["$ref"].as_str()?.strip_prefix(SCHEMAS)
}

/// What a value may be.
fn kind(schema: &Value) -> String {
    if let Some(name) = name_of(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for alternatives in ["anyOf", "oneOf"] {
        if let Some(all) = schema[alternatives].as_array() {
            return all.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    if let Some(value) = schema.get("const") {
        return format!("`{}`", text_of(value));
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", text_of(value))).collect::<Vec<_>>().join(", ");
    }
    let one = |name: &str| match name {
        "string" if schema["format"] == "date-time" => "time".to_owned(),
        "string" => "text".to_owned(),
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => "object of texts".to_owned(),
        "object" if schema["properties"].is_object() => {
            let names = schema["properties"].as_object().into_iter().flat_map(Map::keys);
            format!("object with {}", names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
        name => name.to_owned(),
    };
    match &schema["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(one).collect::<Vec<_>>().join(" or "),
        name => name.as_str().map_or_else(|| "any".to_owned(), one),
    }
}

/// The range and the default of a value that a client sends.
fn limits(schema: &Value) -> String {
    let mut said = String::new();
    // the bounds of an integer's own type say nothing
    if let (Some(least), Some(most), None) = (schema.get("minimum"), schema.get("maximum"), schema.get("format")) {
        let _ = write!(said, ", {least} to {most}");
    }
    let default = match schema.get("default") {
        None | Some(Value::Null | Value::Bool(false)) => None,
        Some(Value::String(default)) => Some(default.clone()),
        Some(default) => Some(default.to_string()),
    };
    if let Some(default) = default {
        let _ = write!(said, ", default `{default}`");
    }
    said
}

/// A table of the fields of an object, or what else the schema permits.
fn fields(schema: &Value, title: &str, is_sent: bool) -> String {
    let Some(properties) = schema["properties"].as_object() else { return format!("{}\n", kind(schema)) };
    let mut table = format!("| {title} | type | meaning |\n|---|---|---|\n");
    for (name, field) in properties {
        let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name.as_str()));
        let optional = if required { "" } else { ", optional" };
        let limits = if is_sent { limits(field) } else { String::new() };
        let _ =
            writeln!(table, "| `{name}` | {}{optional}{limits} | {} |", kind(field), text_of(&field["description"]));
    }
    table
}

fn credential(operation: &Operation) -> String {
    match operation.auth {
        Auth::None => "No credential.".to_owned(),
        Auth::Webhook => "Credential: the webhook token.".to_owned(),
        Auth::Slack => "Credential: Slack's signature.".to_owned(),
        Auth::Api => {
            let route = TABLE.iter().find(|(path, method, _)| (*path, method) == (operation.path, &operation.method));
            let role = route.map(|(.., route)| route.role().as_str()).unwrap_or_default();
            format!("Credential: an API token with the role `{role}`.")
        }
    }
}

fn route(operation: &Operation, described: &Value, schemas: &Value) -> String {
    let mut out = format!("### `{} {}`\n\n", operation.method, operation.path);
    let _ = writeln!(out, "{}", wrapped(&format!("{}. {}", operation.summary, operation.description)));
    let _ = write!(out, "{}\n\n", credential(operation));
    let parameters = described["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        out.push_str("| parameter | in | type | meaning |\n|---|---|---|---|\n");
        for parameter in parameters {
            let schema = &parameter["schema"];
            let optional = if parameter["required"] == true { "" } else { ", optional" };
            let _ = writeln!(
                out,
                "| `{}` | {} | {}{optional}{} | {} |",
                text_of(&parameter["name"]),
                text_of(&parameter["in"]),
                kind(schema),
                limits(schema),
                text_of(&parameter["description"])
            );
        }
        out.push('\n');
    }
    if let Some((content_type, content)) =
        described["requestBody"]["content"].as_object().and_then(|all| all.iter().next())
    {
        let schema = &content["schema"];
        let schema = name_of(schema).map_or(schema, |name| &schemas[name]);
        let title = if content_type == "application/json" { "body" } else { "form" };
        if described["requestBody"]["required"] == false {
            out.push_str("The body may be empty.\n\n");
        }
        let _ = writeln!(out, "{}", fields(schema, title, true));
    }
    out.push_str("| status | answer |\n|---|---|\n");
    let mut errors: Vec<&str> = Vec::new();
    for (status, answer) in described["responses"].as_object().into_iter().flatten() {
        if answer.get("$ref").is_some() {
            errors.push(status);
            continue;
        }
        let content = answer["content"].as_object().and_then(|all| all.iter().next());
        let shown = content.map(|(content_type, content)| match name_of(&content["schema"]) {
            Some(_) => kind(&content["schema"]),
            None => format!("`{}`", content_type.split(';').next().unwrap_or_default()),
        });
        let _ = writeln!(out, "| {status} | {}: {} |", shown.unwrap_or_default(), text_of(&answer["description"]));
    }
    if !errors.is_empty() {
        let _ = writeln!(out, "| {} | [an error](#credentials-and-errors) |", errors.join(", "));
    }
    out
}

fn page() -> String {
    let document = document();
    let schemas = &document["components"]["schemas"];
    let mut out = INTRODUCTION.to_owned();
    let _ = write!(
        out,
        "\n{}\n## Credentials and errors\n\n",
        wrapped(document["info"]["description"].as_str().unwrap_or_default())
    );
    out.push_str("| credential | what it is |\n|---|---|\n");
    let (token, webhook, slack) = ("an API token", "the webhook token", "Slack's signature");
    for (name, key) in [(token, "apiToken"), (webhook, "webhookToken"), (slack, "slackSignature")] {
        let scheme = &document["components"]["securitySchemes"][key];
        let header = if scheme["scheme"] == "bearer" { "`Authorization: Bearer TOKEN`. " } else { "" };
        let _ = writeln!(out, "| {name} | {header}{} |", text_of(&scheme["description"]));
    }
    out.push_str("\n| status | meaning |\n|---|---|\n");
    for (status, _, meaning) in ERRORS {
        let _ = writeln!(out, "| {status} | {} |", cell(meaning));
    }
    for tag in document["tags"].as_array().into_iter().flatten() {
        let (name, about) = (text_of(&tag["name"]), text_of(&tag["description"]));
        let _ = write!(out, "\n## {}{}\n\n{about}\n", name[..1].to_uppercase(), &name[1..]);
        for operation in OPERATIONS.iter().filter(|operation| operation.tag == name) {
            let method = operation.method.as_str().to_lowercase();
            let _ = write!(out, "\n{}", route(operation, &document["paths"][operation.path][&method], schemas));
        }
    }
    out.push_str(
        "\n## Objects\n\nWhat bodies and answers consist of. An answer has every field that is not optional.\n",
    );
    let asked: Vec<&str> = document["paths"]
        .as_object()
        .into_iter()
        .flat_map(|paths| paths.values().filter_map(Value::as_object).flat_map(Map::values))
        .filter_map(|operation| operation["requestBody"]["content"].as_object()?.values().next())
        .filter_map(|content| name_of(&content["schema"]))
        .collect();
    for (name, schema) in schemas.as_object().into_iter().flatten().filter(|(name, _)| !asked.contains(&name.as_str()))
    {
        let _ = write!(out, "\n### {name}\n\n");
        if let Some(about) = schema["description"].as_str() {
            let _ = writeln!(out, "{}", wrapped(about));
        }
        out.push_str(&fields(schema, "field", false));
    }
    out
}

#[test]
fn the_page_describes_every_route() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let page = page();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page, "{FILE} is out of date: run UPDATE_OPENAPI=1 cargo test --lib openapi");
    for operation in OPERATIONS {
        assert!(page.contains(&format!("\n### `{} {}`\n", operation.method, operation.path)), "{}", operation.path);
    }
}
