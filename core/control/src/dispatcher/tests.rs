//! Decisions of the core, event by event.
