//! Decisions of the slot table, event by event.
