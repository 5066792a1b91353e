//! The receiving side of an edge or of several edges of one item type.

use super::{
    align::Align,
    channel::{Msg, Receiver},
};
use crate::{
    batch::{Batch, Time},
    key::Data,
    task::Saying,
};
use thalweg_model::TaskFailure;

/// What a gate has next.
pub(crate) enum Next<T> {
    /// Records of one channel; give the batch back when it is consumed.
    Batch(usize, Batch<T>),
    /// All channels agree on this.
    Say(Saying),
    /// A latency marker, of whichever channel.
    Latency(Time),
    /// Nothing yet.
    Nothing,
}

/// The channels of one input.
pub(crate) struct Gate<T> {
    channels: Vec<Receiver<T>>,
    /// Index of the first one in the task's [`Align`].
    first: usize,
    turn: usize,
}

impl<T: Data> Gate<T> {
    pub(crate) fn new(channels: Vec<Receiver<T>>, first: usize) -> Self {
        Self { channels, first, turn: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    /// The next message, from each channel in turn.
    pub(crate) fn next(&mut self, align: &mut Align) -> Result<Next<T>, TaskFailure> {
        if let Some(say) = align.due() {
            return Ok(Next::Say(say));
        }
        let n = self.channels.len();
        let mut idle = 0;
        while idle < n {
            let i = self.turn;
            let channel = self.first + i;
            self.turn = if i + 1 == n { 0 } else { i + 1 };
            if align.closed(channel) {
                idle += 1;
                continue;
            }
            let say = match self.channels[i].recv()? {
                None => {
                    idle += 1;
                    continue;
                }
                Some(Msg::Data(batch)) => return Ok(Next::Batch(i, batch)),
                Some(Msg::Latency(marker)) => return Ok(Next::Latency(marker)),
                Some(Msg::Mark(mark)) => align.mark(channel, mark),
                Some(Msg::Barrier(id)) => align.barrier(channel, id),
                Some(Msg::End) => align.end(channel),
            };
            if let Some(say) = say {
                return Ok(Next::Say(say));
            }
            idle = 0;
        }
        Ok(Next::Nothing)
    }

    pub(crate) fn recycle(&mut self, channel: usize, batch: Batch<T>) {
        self.channels[channel].recycle(batch);
    }

    /// Messages of one channel, without alignment: for feedback edges.
    pub(crate) fn recv(&mut self, channel: usize) -> Result<Option<Msg<T>>, TaskFailure> {
        self.channels[channel].recv()
    }
}
