//! Which operators share a task, a thread and a slot. By itself each chain is as long as it can be.

use crate::DataStream;
use std::panic::Location;
use thalweg_dataflow::{
    Data,
    detach::{Detach, Detached},
    pipe::Pipe,
    routes::TurnRoute,
    side::Sides,
};
use thalweg_model::Partitioner;

impl<T, P> DataStream<T, P> {
    /// The slot-sharing group of the chain that the last operator is in, `default` when nothing is said; what follows is in
    /// it too. Groups have slots of their own, each as many as its widest chain has subtasks: for a part of a job whose
    /// load must not be added to that of the others.
    pub fn slot_sharing_group(self, group: impl Into<String>) -> Self {
        self.plan.set_slot_sharing_group(self.op.vertex, group.into());
        self
    }

    /// The chain that the last operator is in waits for the outside world: its subtasks run on threads of their own,
    /// and not on those of their slots, where others would wait with them.
    pub fn own_thread(self) -> Self {
        self.plan.set_own_thread(self.op.vertex);
        self
    }
}

impl<T: 'static, P: Pipe<Item = T>> DataStream<T, P> {
    /// What follows is a chain of its own: tasks that are stepped apart from these, with a parallelism of its own if that is
    /// set. Where both have the same, subtask `i` feeds subtask `i`.
    #[track_caller]
    pub fn start_new_chain(self) -> DataStream<T>
    where
        T: Data,
    {
        let timed = self.timed.travels();
        self.exchange("chain", Partitioner::Forward, |edge| TurnRoute { edge, timed })
    }

    /// The last operator is a chain of its own: its tasks are stepped apart from those in front of it and behind it. Where both
    /// have the same parallelism, subtask `i` feeds subtask `i`. For seeing what it costs, or giving it a parallelism, a thread
    /// or slots of its own; records move more cheaply within a chain.
    ///
    /// It begins with the parallelism of the chain that it was in. `uid`, `name`, `parallelism` and their like may follow, and are
    /// said of this operator. Side outputs are asked for behind it; what is done with them is in its chain.
    ///
    /// ```
    /// # let env = thalweg_api::testing::environment(1, std::env::temp_dir())?;
    /// let squares = env.sequence(0..4).map(|i| i * i).disable_chaining().name("squares").filter(|i| i % 2 == 0).collect();
    /// assert_eq!(env.execute("squares")?.collected(&squares)?, [0, 4]);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn disable_chaining(self) -> DataStream<T>
    where
        T: Data,
        P: Detach<Input: Data>,
    {
        let asked_for = self.sides.as_ref().is_some_and(Sides::is_asked_for);
        let Detached { op, out, refused } = self.pipe.detach(&self.plan, self.op, self.timed.travels());
        // What takes a side output is in the vertex that the operator has left then.
        let side = (asked_for && op != self.op).then_some("call it before side_output() and on_error()");
        if let Some(why) = refused.or(side) {
            self.plan.error(format!("disable_chaining at {}: {why}", Location::caller()));
        }
        let next_chain: fn(DataStream<T>) -> DataStream<T> = DataStream::start_new_chain;
        let mut alone = DataStream::new(self.plan, op, out, self.timed);
        (alone.sides, alone.next_chain) = (self.sides, Some(next_chain));
        alone
    }

    /// The stream for one more operator of this chain: behind one that stands alone that is a new chain.
    #[track_caller]
    pub(crate) fn open(self) -> Self {
        let Some(next_chain) = self.next_chain else { return self };
        let (plan, timed, mut op) = (self.plan, self.timed, self.op);
        let pipe = self.pipe.behind(|inlet| {
            let next = next_chain(DataStream::new(plan.clone(), op, inlet, timed));
            op = next.op;
            next.pipe
        });
        DataStream::new(plan, op, pipe, timed)
    }
}
