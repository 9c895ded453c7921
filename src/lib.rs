pub mod config;
pub mod decision;
