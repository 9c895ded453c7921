//! The table of routes.

use hyper::Method;
use matchit::Router;

use crate::config::Role;

/// The content of the web page at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageKind {
    Overview,
    Prompt,
    Incidents,
    Incident,
    /// The picture of an incident.
    Picture,
    Rollouts,
    /// The style sheet, the script, the icon.
    Asset,
}

/// The routes that the API description documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Webhook,
    Rollback,
    Import,
    Prompts,
    Prompt,
    Log,
    Logs,
    Versions,
    Restore,
    Mark,
    Activate,
    Canary,
    Gates,
    Explain,
    Incidents,
    Incident,
    Postmortem,
    Decide,
    Report,
    StartDrill,
    Drill,
    Pause,
    Resume,
    Slack,
    Login,
    Logout,
    Events,
    Reload,
    Metrics,
    OpenApi,
    Healthy,
    Ready,
    /// The page, for browsers.
    Page(PageKind),
}

/// Each path, its method and its route. HEAD is GET without the body.
pub static TABLE: [(&str, Method, Route); 39] = [
    ("/webhooks/alertmanager", Method::POST, Route::Webhook),
    ("/api/rollback", Method::POST, Route::Rollback),
    ("/api/import", Method::POST, Route::Import),
    ("/api/prompts", Method::GET, Route::Prompts),
    ("/api/prompts/{prompt}", Method::GET, Route::Prompt),
    ("/api/log", Method::GET, Route::Logs),
    ("/api/prompts/{prompt}/log", Method::GET, Route::Log),
    ("/api/prompts/{prompt}/versions", Method::POST, Route::Versions),
    ("/api/prompts/{prompt}/versions/{version}/restore", Method::POST, Route::Restore),
    ("/api/prompts/{prompt}/versions/{version}/mark", Method::POST, Route::Mark),
    ("/api/prompts/{prompt}/activate", Method::POST, Route::Activate),
    ("/api/prompts/{prompt}/canary", Method::POST, Route::Canary),
    ("/api/prompts/{prompt}/gates", Method::GET, Route::Gates),
    ("/api/prompts/{prompt}/explain", Method::GET, Route::Explain),
    ("/api/incidents", Method::GET, Route::Incidents),
    ("/api/incidents/{id}", Method::GET, Route::Incident),
    ("/api/incidents/{id}/postmortem", Method::GET, Route::Postmortem),
    ("/api/incidents/{id}/decide", Method::POST, Route::Decide),
    ("/api/report", Method::GET, Route::Report),
    ("/api/drill", Method::POST, Route::StartDrill),
    ("/api/drill/{id}", Method::GET, Route::Drill),
    ("/api/pause", Method::POST, Route::Pause),
    ("/api/resume", Method::POST, Route::Resume),
    ("/slack/interactions", Method::POST, Route::Slack),
    ("/login", Method::POST, Route::Login),
    ("/logout", Method::POST, Route::Logout),
    ("/events", Method::GET, Route::Events),
    ("/metrics", Method::GET, Route::Metrics),
    ("/openapi.json", Method::GET, Route::OpenApi),
    ("/-/reload", Method::POST, Route::Reload),
    ("/-/healthy", Method::GET, Route::Healthy),
    ("/-/ready", Method::GET, Route::Ready),
    ("/", Method::GET, Route::Page(PageKind::Overview)),
    ("/prompts/{prompt}", Method::GET, Route::Page(PageKind::Prompt)),
    ("/incidents", Method::GET, Route::Page(PageKind::Incidents)),
    ("/incidents/{id}", Method::GET, Route::Page(PageKind::Incident)),
    ("/incidents/{id}/picture.svg", Method::GET, Route::Page(PageKind::Picture)),
    ("/rollouts", Method::GET, Route::Page(PageKind::Rollouts)),
    ("/assets/{file}", Method::GET, Route::Page(PageKind::Asset)),
];

impl Route {
    /// The role that a caller needs.
    pub fn role(self) -> Role {
        match self {
            Route::Versions | Route::Restore | Route::Activate | Route::Canary => Role::Deploy,
            Route::Rollback | Route::Mark | Route::Decide | Route::Pause | Route::Resume => Role::Decide,
            Route::Import | Route::StartDrill | Route::Reload => Role::Admin,
            _ => Role::Read,
        }
    }

    /// The query parameters that it takes. `None`: others are ignored, because links, proxies and senders of alerts add
    /// their own.
    pub fn parameters(self) -> Option<&'static [&'static str]> {
        match self {
            Route::Prompts => Some(&["limit", "cursor", "without_target"]),
            Route::Logs => Some(&["limit", "cursor", "since"]),
            Route::Log => Some(&["limit", "cursor"]),
            Route::Incidents => Some(&["limit", "cursor", "open"]),
            Route::Gates => Some(&["version"]),
            Route::Explain => Some(&["alert"]),
            Route::Report => Some(&["since"]),
            _ => self.path().starts_with("/api/").then_some(&[]),
        }
    }

    pub fn path(self) -> &'static str {
        TABLE.iter().find(|(_, _, route)| *route == self).map_or("", |(path, ..)| path)
    }
}

/// Paths → methods and routes.
#[derive(Debug)]
pub struct Routes(Router<(Method, Route)>);

impl Routes {
    #[allow(clippy::expect_used, reason = "a fixed table, run at every start")]
    pub fn new() -> Self {
        let mut router = Router::new();
        for (path, method, route) in TABLE.iter().cloned() {
            router.insert(path, (method, route)).expect("the routes do not conflict");
        }
        Self(router)
    }

    /// The route and its parameters, decoded: a `/` in a prompt's name comes as `%2F`. Without them, if they are not UTF-8.
    pub fn find(&self, path: &str) -> Option<(&Method, Route, Option<[String; 2]>)> {
        let found = self.0.at(path).ok()?;
        let mut parameters = found.params.iter().map(|(_, value)| value);
        let mut decoded = || {
            let parameter = parameters.next().unwrap_or_default();
            Some(percent_encoding::percent_decode_str(parameter).decode_utf8().ok()?.into_owned())
        };
        let (method, route) = found.value;
        let both = decoded().and_then(|first| Some([first, decoded()?]));
        Some((method, *route, both))
    }
}

impl Default for Routes {
    fn default() -> Self {
        Self::new()
    }
}
