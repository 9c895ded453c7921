//! What people read while something is wrong: the runbooks and the dashboard, tried on the real parts.

mod dashboard;
mod deploy;
mod guides;
mod runbooks;
mod world;
