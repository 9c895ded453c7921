//! The testkit's own tests, in one program.

mod slack;
mod starts;
mod strikes;
