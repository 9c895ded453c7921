//! `GET /openapi.json`: the description of every route. It is a file, so that serving it costs nothing; a test generates it
//! from the table of routes and the types of `api`.

#[cfg(test)]
mod describe;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod reference;

pub const DOCUMENT: &str = include_str!("openapi.json");
