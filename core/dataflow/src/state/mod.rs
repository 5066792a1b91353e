//! State of operators: the rows of keyed ones, named states of functions beside them, lists of operators without keys.

mod cells;
#[cfg(test)]
mod cells_tests;
mod flat;
#[cfg(test)]
mod measure_tests;
pub(crate) mod named;
pub(crate) mod operator;
mod rows;
mod table;
#[cfg(test)]
mod table_tests;
mod views;

pub(crate) use flat::{Flat, FlatIter};
pub use named::{AggregatingState, KeyedState, KeyedStates, ListState, MapState, ReducingState, StateTtl, ValueState};
pub use operator::{OperatorListState, OperatorStates};
pub(crate) use rows::{RowTable, Rows, TILE};
pub(crate) use table::{IntoEntries, Place};
pub use views::{AggregatingView, ListView, MapView, ReducingView, StateAt, ValueView};

/// Bytes that the tables of keyed state of this process take, without what keys and values own elsewhere.
pub fn table_bytes() -> usize {
    table::allocated()
}
