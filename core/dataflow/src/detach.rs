//! Takes the last operator of a chain out of it, so that it stands alone. What comes behind it is the api's matter.

use crate::{
    gate_task::add_gate,
    key::Data,
    pipe::{Inlet, Pipe, Then, ToInlet, Transform, close},
    plan::{OpId, PlanBuilder},
    routes::TurnRoute,
    source::{Source, SourceHead},
};
use thalweg_model::Partitioner;

/// A chain whose last operator can be taken out of it.
pub trait Detach: Pipe {
    /// What flows into the last operator, from one in front of it: it crosses an exchange then.
    type Input;
    /// Ends what is in front of `op`, the last operator, in an exchange, and gives `op` a vertex of its own, unless it
    /// begins one already.
    fn detach(self, plan: &PlanBuilder, op: OpId, timed: bool) -> Detached<Self::Item>
    where
        Self::Input: Data;
}

/// A chain that was closed behind an operator.
pub struct Detached<T> {
    /// Where the operator is now.
    pub op: OpId,
    /// What comes out of it.
    pub out: Inlet<T>,
    /// Why it is where it was, and what to do.
    pub refused: Option<&'static str>,
}

impl<T> Detached<T> {
    fn refused(self, why: &'static str) -> Self {
        Self { refused: Some(why), ..self }
    }
}

/// Ends the chain in an inlet of the same task.
fn closed<P: Pipe>(plan: &PlanBuilder, op: OpId, pipe: P) -> Detached<P::Item> {
    let out = Inlet::behind(&pipe);
    close(plan, op.vertex, pipe, ToInlet(out.clone()));
    let watch = out.clone();
    plan.open_end(op, move || watch.is_taken());
    Detached { op, out, refused: None }
}

impl<P: Pipe, O: Transform<P::Item>> Detach for Then<P, O> {
    type Input = P::Item;

    fn detach(self, plan: &PlanBuilder, op: OpId, timed: bool) -> Detached<O::Out>
    where
        P::Item: Data,
    {
        if plan.begins_its_chain(op) {
            return closed(plan, op, self);
        }
        if let Some(why) = self.op().stays() {
            return closed(plan, op, self).refused(why);
        }
        let Some(alone) = plan.move_out(op) else {
            return closed(plan, op, self).refused(
                "other operators stand behind it, perhaps at its side output: call it right behind the operator",
            );
        };
        let (up, operator) = self.into_parts();
        let edge = plan.edge::<P::Item>(op.vertex, alone.vertex, Partitioner::Forward, false);
        close(plan, op.vertex, up, TurnRoute { edge, timed });
        let inlet = add_gate(plan, alone.vertex, vec![edge], alone);
        closed(plan, alone, Then::new(inlet, operator, alone.op))
    }
}

impl<T: 'static> Detach for Inlet<T> {
    type Input = ();

    fn detach(self, plan: &PlanBuilder, op: OpId, _: bool) -> Detached<T> {
        let erased = !plan.begins_its_chain(op);
        let refused = erased.then_some(
            "call it right behind the operator itself: what boxed(), split() and side_output() give has no type of it",
        );
        Detached { op, out: self, refused }
    }
}

impl<S: Source> Detach for SourceHead<S> {
    type Input = ();

    fn detach(self, plan: &PlanBuilder, op: OpId, _: bool) -> Detached<S::Item> {
        closed(plan, op, self)
    }
}
