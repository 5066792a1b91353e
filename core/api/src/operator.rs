//! What operators, sources and sinks of one's own are made of, and the names of what a stream carries behind it. It is no
//! part of the language that most jobs need.
//!
//! An operator is a [`Transform`], which travels, and the [`Operator`] that it opens in each subtask;
//! [`DataStream::apply`](crate::DataStream::apply) puts it behind a stream. A function over streams names their [`Pipe`]:
//! `fn cleaned<P: Pipe<Item = Event>>(events: DataStream<Event, P>) -> …`.

pub use thalweg_dataflow::{
    Batch, Control, Flow, Mark, OpCx, Operator, Push, Ready,
    fold::{Fold, Keys},
    ops::ClonedToSubtasks,
    pipe::{Inlet, Pipe, Then, Transform},
    push::STRIDE,
    task::TaskCell,
};
