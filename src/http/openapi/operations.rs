//! What each route takes and answers.

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::api;
use crate::http::webhook;

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What lets a request in.
#[derive(Clone, Copy)]
pub enum Auth {
    None,
    Api,
    Webhook,
    Slack,
}

#[derive(Clone, Copy)]
pub struct Body {
    pub required: bool,
    pub schema: SchemaOf,
    pub content_type: &'static str,
}

#[derive(Clone, Copy)]
pub enum BodySpec {
    Json(SchemaOf),
    Text(&'static str),
}

pub struct ResponseSpec {
    pub status: u16,
    pub description: &'static str,
    pub content: BodySpec,
}

pub struct ParameterSpec {
    pub name: &'static str,
    pub required: bool,
    pub description: &'static str,
    /// JSON.
    pub schema: &'static str,
}

pub struct Operation {
    pub path: &'static str,
    pub method: Method,
    pub id: &'static str,
    pub tag: &'static str,
    pub auth: Auth,
    pub summary: &'static str,
    pub description: &'static str,
    pub query: &'static [ParameterSpec],
    pub body: Option<Body>,
    pub answers: &'static [ResponseSpec],
    /// Whether it may be refused because of the state of a prompt or an incident.
    pub conflicts: bool,
}

impl Operation {
    pub fn fails_with(&self, status: u16) -> bool {
        let named = self.path.contains('{');
        match status {
            400 => self.path.starts_with("/api/") || self.body.is_some() || named || self.method == Method::POST,
            401 => !matches!(self.auth, Auth::None),
            // every address serves health checks; the page and the metrics may have an address of their own
            404 => !matches!(self.id, "healthy" | "ready"),
            // a prompt with an unreadable record is answered with a conflict
            409 => self.conflicts || named,
            413 => self.method == Method::POST,
            _ => true,
        }
    }
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn body<T: JsonSchema>() -> Option<Body> {
    Some(Body { required: true, schema: of::<T>, content_type: "application/json" })
}

const fn ok<T: JsonSchema>(description: &'static str) -> ResponseSpec {
    answer::<T>(200, description)
}

const fn answer<T: JsonSchema>(status: u16, description: &'static str) -> ResponseSpec {
    ResponseSpec { status, description, content: BodySpec::Json(of::<T>) }
}

const fn text(status: u16, description: &'static str) -> ResponseSpec {
    ResponseSpec { status, description, content: BodySpec::Text("text/plain; charset=utf-8") }
}

/// What Alertmanager posts, as far as it is read.
fn delivery(_: &mut SchemaGenerator) -> Schema {
    let texts = || json_schema!({ "type": "object", "additionalProperties": { "type": "string" } });
    json_schema!({
        "type": "object",
        "required": ["alerts"],
        "properties": {
            "alerts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["status", "labels"],
                    "properties": {
                        "status": { "type": "string", "enum": ["firing", "resolved"] },
                        "labels": texts(),
                        "annotations": texts(),
                        "startsAt": { "type": "string", "format": "date-time" },
                        "endsAt": { "type": "string", "format": "date-time" },
                        "generatorURL": { "type": "string" },
                        "fingerprint": { "type": "string" },
                    },
                },
            },
            "groupLabels": texts(),
            "commonLabels": texts(),
            "externalURL": { "type": "string" },
            "truncatedAlerts": { "type": "integer", "minimum": 0 },
        },
    })
}

fn interaction(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["payload"],
        "properties": { "payload": { "type": "string", "description": "JSON, as Slack documents it." } },
    })
}

const LIMIT: ParameterSpec = ParameterSpec {
    name: "limit",
    required: false,
    description: "Entries of one page.",
    schema: r#"{"type":"integer","minimum":1,"maximum":1000,"default":100}"#,
};
const CURSOR: ParameterSpec = ParameterSpec {
    name: "cursor",
    required: false,
    description: "`next` of the previous page.",
    schema: r#"{"type":"string"}"#,
};

const SINCE: ParameterSpec = ParameterSpec {
    name: "since",
    required: false,
    description: "A duration, or a time in the past.",
    schema: r#"{"type":"string","default":"7d"}"#,
};

const fn flag(name: &'static str, description: &'static str) -> ParameterSpec {
    ParameterSpec { name, required: false, description, schema: r#"{"type":"boolean","default":false}"# }
}

/// An operation of the API that asks for nothing but its path; the others say what is different.
const DEFAULT: Operation = Operation {
    path: "",
    method: Method::GET,
    id: "",
    tag: "prompts",
    auth: Auth::Api,
    summary: "",
    description: "",
    query: &[],
    body: None,
    answers: &[],
    conflicts: false,
};

const CONFIRMING: ResponseSpec = answer::<api::ChangeResponse>(
    202,
    "The receiver still asks Prometheus whether to roll back, or restores the content of the target. The incident shows the result.",
);

pub static OPERATIONS: &[Operation] = &[
    Operation {
        path: "/webhooks/alertmanager",
        method: Method::POST,
        id: "receiveAlerts",
        tag: "integrations",
        auth: Auth::Webhook,
        summary: "Receive alerts from Alertmanager",
        description: "Answers 200 only after everything is committed in Redis. Each alert has its own outcome. If an alert could not be committed now but may be later, the answer is 503, and Alertmanager sends all alerts again.",
        body: Some(Body { required: true, schema: delivery, content_type: "application/json" }),
        answers: &[ok::<webhook::Results<'static>>("What was done about each alert, in the order of the request.")],
        ..DEFAULT
    },
    Operation {
        path: "/events",
        id: "followChanges",
        summary: "Follow changes as they happen",
        description: "Server-Sent Events. `change` names a prompt that has changed, regardless of which receiver committed the change: `{\"prompt\":\"…\"}`. With more than ten open streams, `change` and `resync` also have `spread`: wait for a random time of up to so many milliseconds before you read. `resync` is the first event, and also comes after a reload of the config, and whenever changes may have been missed: read everything again. `stale` means that the receiver cannot reach Redis, until the next `resync`. `keep-alive` comes every 15 seconds. The stream ends within an hour, at a shutdown, and when a reload has replaced the token or certificate with which it was opened; a browser reconnects automatically. Beyond `page.max_streams` the answer is 503 with `Retry-After`.",
        answers: &[ResponseSpec {
            status: 200,
            description: "The stream.",
            content: BodySpec::Text("text/event-stream"),
        }],
        ..DEFAULT
    },
    Operation {
        path: "/slack/interactions",
        method: Method::POST,
        id: "receiveInteraction",
        tag: "integrations",
        auth: Auth::Slack,
        summary: "Receive a click from Slack",
        body: Some(Body { required: true, schema: interaction, content_type: "application/x-www-form-urlencoded" }),
        answers: &[text(200, "The click was accepted; its result appears in Slack.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/rollback",
        method: Method::POST,
        id: "rollback",
        summary: "Roll a prompt back",
        description: "Without `target_version` the target is the last known-good version. With `from_version` nothing changes unless that version is active.",
        body: body::<api::RollbackRequest>(),
        answers: &[
            ok::<api::ChangeResponse>("The target is active, or has its first share of the traffic."),
            CONFIRMING,
        ],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/import",
        method: Method::POST,
        id: "importPrompts",
        summary: "Import prompts that are already being served",
        description: "Each request imports some keys; `next` is the cursor for the next request, and null at the end.",
        body: body::<api::ImportRequest>(),
        answers: &[ok::<api::ImportResponse>("The imported prompts, and the skipped keys.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts",
        id: "listPrompts",
        summary: "List prompts",
        query: &[CURSOR, LIMIT, flag("without_target", "Only prompts that have no version to roll back to.")],
        answers: &[ok::<api::PromptList>("One page.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}",
        id: "getPrompt",
        summary: "Get a prompt with its versions and open incidents",
        answers: &[ok::<api::PromptView>("The prompt.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/log",
        id: "getLogs",
        summary: "Read the deployment logs of all prompts",
        description: "Sorted by the name of the prompt, then latest entry first. A page can be empty although a next page follows.",
        query: &[CURSOR, LIMIT, SINCE],
        answers: &[ok::<api::DeploymentLog>("One page.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/log",
        id: "getLog",
        summary: "Read the deployment log of a prompt, latest first",
        query: &[CURSOR, LIMIT],
        answers: &[ok::<api::DeploymentLog>("One page.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/versions",
        method: Method::POST,
        id: "registerVersion",
        summary: "Register a version",
        body: body::<api::RegisterRequest>(),
        answers: &[
            ok::<api::RegisterResponse>("The same version was registered before."),
            answer::<api::RegisterResponse>(201, "The version is registered."),
        ],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/versions/{version}/restore",
        method: Method::POST,
        id: "restoreContent",
        summary: "Restore the content of a version from the archive",
        answers: &[
            ok::<api::RestoreResponse>("The content is in Redis."),
            answer::<api::RestoreResponse>(202, "The content is still being restored."),
        ],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/versions/{version}/mark",
        method: Method::POST,
        id: "markVersion",
        summary: "Mark a version as bad or as good",
        description: "A version that is marked as bad is never a rollback target.",
        body: body::<api::MarkRequest>(),
        answers: &[ok::<api::MarkResponse>("The version is marked.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/activate",
        method: Method::POST,
        id: "activateVersion",
        summary: "Activate a version, for all traffic, for a share of it, or as a canary",
        body: body::<api::ActivateRequest>(),
        answers: &[ok::<api::ChangeResponse>("The version is active, or has its share of the traffic.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/canary",
        method: Method::POST,
        id: "steerCanary",
        summary: "Pause, resume, skip a stage of, hold, promote or abort a canary",
        body: body::<api::SteerRequest>(),
        answers: &[ok::<api::ChangeResponse>("What the canary does now.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/gates",
        id: "getGates",
        summary: "Show the promotion gates of a version",
        query: &[ParameterSpec {
            name: "version",
            required: true,
            description: "Name of the version.",
            schema: r#"{"type":"string"}"#,
        }],
        answers: &[ok::<api::GatesResponse>("Each gate, with its figures.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/prompts/{prompt}/explain",
        id: "explainPrompt",
        summary: "Explain what would happen if alerts fired now",
        description: "Decides about an alert of each rule as the webhook would, in the current state, and commits nothing. Uses the rules that Prometheus has loaded or, without Prometheus, the shipped rules.",
        query: &[ParameterSpec {
            name: "alert",
            required: false,
            description: "Name of an alert rule. Without it, all rules with a label `action`, `decider` or `time_limit`.",
            schema: r#"{"type":"string","minLength":1,"maxLength":200}"#,
        }],
        answers: &[ok::<api::ExplainView>("What each alert would do, on each version that has traffic.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/incidents",
        id: "listIncidents",
        tag: "incidents",
        summary: "List incidents, latest first",
        query: &[CURSOR, LIMIT, flag("open", "Only open incidents.")],
        answers: &[ok::<api::IncidentList>("One page.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/incidents/{id}",
        id: "getIncident",
        tag: "incidents",
        summary: "Get an incident",
        answers: &[ok::<api::AnyIncident>("The incident of one prompt, or an outage of many.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/incidents/{id}/postmortem",
        id: "getPostmortem",
        tag: "incidents",
        summary: "Get a draft of the post-mortem",
        answers: &[ResponseSpec {
            status: 200,
            description: "Markdown.",
            content: BodySpec::Text("text/markdown; charset=utf-8"),
        }],
        ..DEFAULT
    },
    Operation {
        path: "/api/incidents/{id}/decide",
        method: Method::POST,
        id: "decide",
        tag: "incidents",
        summary: "Decide about an incident, like the buttons in Slack",
        body: body::<api::DecideRequest>(),
        answers: &[ok::<api::DecideResponse>("The decision is carried out."), CONFIRMING],
        ..DEFAULT
    },
    Operation {
        path: "/api/report",
        id: "getReport",
        tag: "automation",
        summary: "Report which rollbacks a dry run would have made",
        query: &[SINCE],
        answers: &[ok::<api::DryRunReportView>("Figures by trigger, and the cases.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/drill",
        method: Method::POST,
        id: "startDrill",
        tag: "automation",
        summary: "Send a test alert end to end",
        body: body::<api::DrillRequest>(),
        answers: &[answer::<api::DrillView>(201, "The drill has started.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/drill/{id}",
        id: "getDrill",
        tag: "automation",
        summary: "Get the progress of a drill",
        answers: &[ok::<api::DrillView>("The drill, step by step.")],
        ..DEFAULT
    },
    Operation {
        path: "/api/pause",
        method: Method::POST,
        id: "pause",
        tag: "automation",
        summary: "Pause automatic rollbacks, of one prompt or of all",
        body: OPTIONAL_PAUSE,
        answers: &[ok::<api::PauseResponse>("Automation is paused.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/api/resume",
        method: Method::POST,
        id: "resume",
        tag: "automation",
        summary: "Resume automatic rollbacks, of one prompt or of all",
        body: OPTIONAL_PAUSE,
        answers: &[ok::<api::PauseResponse>("Automation is resumed.")],
        conflicts: true,
        ..DEFAULT
    },
    Operation {
        path: "/-/reload",
        method: Method::POST,
        id: "reload",
        tag: "operations",
        summary: "Reload the config",
        description: "Applies all changes or none, like SIGHUP.",
        answers: &[ok::<api::ReloadResponse>("What changed, and what needs a restart.")],
        ..DEFAULT
    },
    Operation {
        path: "/-/healthy",
        id: "healthy",
        tag: "operations",
        auth: Auth::None,
        summary: "Check that the process is running",
        answers: &[text(200, "The process is running.")],
        ..DEFAULT
    },
    Operation {
        path: "/-/ready",
        id: "ready",
        tag: "operations",
        auth: Auth::None,
        summary: "Check that the receiver is ready for requests",
        answers: &[text(200, "Ready."), text(503, "Not ready; the text says why.")],
        ..DEFAULT
    },
    Operation {
        path: "/metrics",
        id: "metrics",
        tag: "operations",
        auth: Auth::None,
        summary: "Expose metrics for Prometheus",
        answers: &[ResponseSpec {
            status: 200,
            description: "OpenMetrics text.",
            content: BodySpec::Text("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        }],
        ..DEFAULT
    },
    Operation {
        path: "/openapi.json",
        id: "openapi",
        tag: "operations",
        auth: Auth::None,
        summary: "Describe this API",
        answers: &[ResponseSpec {
            status: 200,
            description: "This document.",
            content: BodySpec::Json(|_| json_schema!({ "type": "object" })),
        }],
        ..DEFAULT
    },
];

const OPTIONAL_PAUSE: Option<Body> =
    Some(Body { required: false, schema: of::<api::PauseRequest>, content_type: "application/json" });
