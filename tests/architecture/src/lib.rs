//! Rules of the code base that a program can check. Each rule is a function of plain data that answers what is wrong, a
//! line each, so that it can be shown to fail on made-up data; `tests/workspace.rs` applies them to this workspace.

pub mod arrows;
pub mod facade;
pub mod licences;
pub mod plugins;
pub mod sources;
pub mod workspace;
