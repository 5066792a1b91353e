//! The seeded control-plane harness: a discrete-event engine without threads, sockets or tokio.
//!
//! A test brings a *world*: nodes (one life of one process each) that handle what [`Sim::next`] hands out, and send, ask
//! and set timers through the [`Sim`]. The engine owns time, order and misfortune: it delays, loses and doubles what
//! travels, breaks connections, kills and stops nodes, all drawn from one seed. It knows nothing of what the nodes are.
//!
//! What it promises to nodes is what the real transport promises, and no more:
//! - a link carries frames in order, each way by itself; different links keep no order among each other;
//! - an ask has at most one outcome: an answer, no answer in time, or a closed link; the last two say nothing about
//!   whether it happened, so whoever asks again doubles the call;
//! - when a link breaks, what was under way is lost from some point on, the ends notice by themselves, perhaps late,
//!   and what was read before an end noticed may still be handled for a short while after;
//! - a node that is stopped handles nothing, and finds its timers and its mail when it wakes, in either order.
//!
//! [`schedules`] runs many seeds, prints the seed of a failure first, and replays it with `THALWEG_SEED=…`.

pub mod links;
pub mod schedules;
pub mod sim;
#[cfg(test)]
mod tests;

pub use links::{CallId, LinkId};
pub use schedules::{Failure, Schedules};
pub use sim::{Happening, Kinds, NodeId, Outcome, Sim, Weather};
