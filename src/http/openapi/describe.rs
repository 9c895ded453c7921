//! Writes the description.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hyper::Method;
use schemars::SchemaGenerator;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value, json};

use super::operations::{Auth, Body, BodySpec, OPERATIONS, Operation};
use crate::api;
use crate::http::route::{Route, TABLE};

const FILE: &str = "src/http/openapi/openapi.json";

/// Fields whose text is a time.
const TIMES: &[&str] = &["at", "began", "since", "stage_since", "timestamp", "until"];

/// Status, name of the shared answer, what it means.
pub const ERRORS: &[(u16, &str, &str)] = &[
    (400, "BadRequest", "The request is malformed. The message names the field and what was expected."),
    (401, "Unauthorized", "The bearer token, or Slack's signature, is missing or wrong."),
    (
        403,
        "Forbidden",
        "The token does not allow this, or the receiver has no token and accepts only requests from this machine, or it requires a client certificate.",
    ),
    (
        404,
        "NotFound",
        "There is no such prompt, version, incident or drill, or it has expired. Or this address does not serve the path: see `metrics.listen`, `page.listen` and `page.enabled`.",
    ),
    (409, "Conflict", "The request is refused in the current state. The code says why."),
    (413, "TooLarge", "The body is too large."),
    (
        503,
        "Unavailable",
        "The request could not be completed now, for example because Redis is unreachable. Send it again later.",
    ),
];

/// Generates schemas of what is sent to the receiver, or of what it answers.
fn generator(contract: Contract) -> SchemaGenerator {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.contract = contract;
    settings.meta_schema = None;
    settings.into_generator()
}

struct Describe {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Describe {
    fn operation(&mut self, operation: &Operation) -> Value {
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [operation.tag],
            "security": match operation.auth {
                Auth::None => json!([]),
                Auth::Api => json!([{ "apiToken": [] }]),
                Auth::Webhook => json!([{ "webhookToken": [] }]),
                Auth::Slack => json!([{ "slackSignature": [] }]),
            },
        });
        if !operation.description.is_empty() {
            described["description"] = operation.description.into();
        }
        let parameters = parameters(operation);
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(Body { required, schema, content_type }) = operation.body {
            let schema = schema(&mut self.requests);
            described["requestBody"] =
                json!({ "required": required, "content": { content_type: { "schema": schema } } });
        }
        let mut answers = Map::new();
        for answer in operation.answers {
            let content = match answer.content {
                BodySpec::Json(schema) => json!({ "application/json": { "schema": schema(&mut self.answers) } }),
                BodySpec::Text(content_type) => json!({ content_type: { "schema": { "type": "string" } } }),
            };
            answers.insert(answer.status.to_string(), json!({ "description": answer.description, "content": content }));
        }
        for (status, name, _) in ERRORS {
            if operation.fails_with(*status) && !answers.contains_key(&status.to_string()) {
                answers.insert(status.to_string(), json!({ "$ref": format!("#/components/responses/{name}") }));
            }
        }
        described["responses"] = answers.into();
        described
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = names.map(|name| {
        let (description, pattern) = match name {
            "prompt" => (
                "Name of the prompt, or its encoded form; a `/` in it is written `%2F`, and a `%` is written `%25`.",
                "^.{1,128}$",
            ),
            "version" => ("Name of the version.", "^[A-Za-z0-9][A-Za-z0-9._:+-]{0,63}$"),
            _ => ("Identifier, as an answer of this API gave it.", "^[0-9A-Za-z]{26}$"),
        };
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
    });
    let query = operation.query.iter().map(|query| {
        let schema: Value = serde_json::from_str(query.schema).unwrap();
        let (name, required) = (query.name, query.required);
        json!({ "name": name, "in": "query", "required": required, "description": query.description, "schema": schema })
    });
    path.chain(query).collect()
}

pub fn document() -> Value {
    let mut describe = Describe { requests: generator(Contract::Deserialize), answers: generator(Contract::Serialize) };
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in OPERATIONS {
        let method = operation.method.as_str().to_lowercase();
        paths.entry(operation.path).or_default().insert(method, describe.operation(operation));
    }
    let refused = describe.answers.subschema_for::<api::Refused>();
    let responses: Map<String, Value> = ERRORS
        .iter()
        .map(|(_, name, description)| {
            let content = json!({ "application/json": { "schema": refused } });
            ((*name).to_owned(), json!({ "description": description, "content": content }))
        })
        .collect();
    let mut schemas = describe.answers.take_definitions(true);
    for (name, schema) in describe.requests.take_definitions(true) {
        let before = schemas.insert(name.clone(), schema.clone());
        assert!(before.is_none_or(|before| before == schema), "{name} is not the same in requests and answers");
    }
    schemas.values_mut().for_each(mark_times);
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "prompt-rollback",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Rolls a misbehaving LLM prompt back to its last known-good version.",
            "description": "Times are RFC 3339 in UTC. Fields may be added to answers at any time; unknown fields in requests are refused. Refused requests and failures answer `{\"error\":{\"code\",\"message\"}}`. HEAD is accepted wherever GET is.",
        },
        "tags": [
            { "name": "prompts", "description": "Prompts, their versions and which of them is served." },
            { "name": "incidents", "description": "Incidents, decisions and post-mortems." },
            { "name": "automation", "description": "Pausing automatic rollbacks, drills, reports." },
            { "name": "integrations", "description": "What Alertmanager and Slack send." },
            { "name": "operations", "description": "Health, metrics, configuration." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {
                "apiToken": { "type": "http", "scheme": "bearer", "description": "`server.api_token`, or the token of a `[tokens.NAME]`, which may do what its roles allow. Without any, the receiver listens on a loopback address and needs no token." },
                "webhookToken": { "type": "http", "scheme": "bearer", "description": "`server.webhook_token`, or the token of one of `[sources]`." },
                "slackSignature": { "type": "apiKey", "in": "header", "name": "X-Slack-Signature", "description": "Slack's request signature, version v0, with `X-Slack-Request-Timestamp`." },
            },
        },
    });
    without_suffix(document)
}

/// Clients know a schema by the name of the thing: `Incident`, not `IncidentView`.
fn without_suffix(document: Value) -> Value {
    const SCHEMAS: &str = "#/components/schemas/";
    match document {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let name = name.strip_suffix("View").map_or(name.clone(), str::to_owned);
                (name, without_suffix(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(without_suffix).collect(),
        Value::String(text) if text.starts_with(SCHEMAS) => text.trim_end_matches("View").into(),
        other => other,
    }
}

/// Says of each field that holds a time that it does.
fn mark_times(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                for (name, property) in properties.iter_mut() {
                    let is_text = property["type"] == "string" || property["type"] == json!(["string", "null"]);
                    if is_text && (name.ends_with("_at") || TIMES.contains(&name.as_str())) {
                        property["format"] = "date-time".into();
                    }
                }
            }
            fields.values_mut().for_each(mark_times);
        }
        Value::Array(items) => items.iter_mut().for_each(mark_times),
        _ => {}
    }
}

#[test]
fn each_route_is_described_and_nothing_else() {
    let key = |path: &str, method: &Method| format!("{method} {path}");
    // the page is for people: what programs may rely on is the API
    let routes = TABLE.iter().filter(|(.., route)| !matches!(route, Route::Page(_) | Route::Login | Route::Logout));
    let mut routes: Vec<String> = routes.map(|(path, method, _)| key(path, method)).collect();
    let mut described: Vec<String> = OPERATIONS.iter().map(|one| key(one.path, &one.method)).collect();
    routes.sort();
    described.sort();
    assert_eq!(routes, described);
    for operation in OPERATIONS {
        let route = TABLE.iter().find(|(path, method, _)| (*path, method) == (operation.path, &operation.method));
        let taken = route.and_then(|(.., route)| route.parameters());
        let described: BTreeSet<_> = operation.query.iter().map(|query| query.name).collect();
        assert!(
            taken.is_none_or(|taken| taken.iter().copied().collect::<BTreeSet<_>>() == described),
            "{}",
            operation.path
        );
    }
}

#[test]
fn the_file_is_what_the_types_and_routes_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let generated = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == generated, "{FILE} is out of date: run UPDATE_OPENAPI=1 cargo test --lib openapi");
}
