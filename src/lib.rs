pub mod alertmanager;
pub mod cli;
pub mod config;
pub mod decision;
pub mod store;
