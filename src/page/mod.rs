//! The page: what is served, what is held, who decides, and what would happen if. Pure: view models in, HTML out.
//!
//! Every text from outside passes through [`parts::Text`] or an attribute of the template, which escapes it. Nothing is
//! inline: the Content-Security-Policy allows neither scripts nor styles in the document.

pub mod actions;
pub mod assets;
pub mod deployments;
pub mod explain;
pub mod incident;
pub mod incidents;
pub mod layout;
pub mod login;
pub mod markdown;
pub mod outage;
pub mod overview;
pub mod parts;
pub mod problem;
pub mod prompt;
pub mod rollouts;
#[cfg(test)]
mod tests;

/// The person who views the page, and their permissions: the page has no button for an action that they may not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The name that is written to the log with what they do.
    pub name: String,
    /// May steer canaries.
    pub may_deploy: bool,
    /// May answer questions, roll back, mark versions and pause automation.
    pub may_decide: bool,
    /// Whether they may see every prompt, and so act on all at once.
    pub sees_all: bool,
    /// The token that each action sends.
    pub csrf: Option<String>,
    /// Whether they signed in, and so can sign out.
    pub signs_out: bool,
}
