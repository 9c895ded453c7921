//! The documents for an incident, the runbooks and the dashboard, tested on real services.

mod ci;
mod consoles;
mod dashboard;
mod deploy;
mod guides;
mod reference;
mod runbooks;
mod tools;
mod world;
