//! Where the two ends of a channel within a process find each other. The first to ask makes it.

use super::{
    channel::{Msg, Queue, Signals},
    ring,
};
use crate::{batch::Batch, key::Data};
use parking_lot::Mutex;
use std::{any::Any, cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

/// Edge, producing and consuming subtask.
pub(crate) type ChannelKey = (u32, u32, u32);

pub(crate) struct RingWriter<T> {
    pub(crate) data: ring::Producer<Msg<T>>,
    pub(crate) spare: ring::Consumer<Batch<T>>,
}

pub(crate) struct RingReader<T> {
    pub(crate) data: ring::Consumer<Msg<T>>,
    pub(crate) spare: ring::Producer<Batch<T>>,
}

struct Halves<T> {
    writer: Option<RingWriter<T>>,
    reader: Option<RingReader<T>>,
    signals: Arc<Signals>,
}

/// Rings between the slots of one host, under one attempt.
#[derive(Default)]
pub(crate) struct Wiring(Mutex<HashMap<ChannelKey, Box<dyn Any + Send>>>);

impl Wiring {
    fn with<T: Data, R>(
        &self,
        key: ChannelKey,
        depth: usize,
        f: impl FnOnce(&mut Halves<T>) -> R,
    ) -> Result<R, String> {
        let mut all = self.0.lock();
        let entry = all.entry(key).or_insert_with(|| {
            let (data_in, data_out) = ring::ring(depth);
            let (spare_in, spare_out) = ring::ring(depth);
            Box::new(Halves::<T> {
                writer: Some(RingWriter { data: data_in, spare: spare_out }),
                reader: Some(RingReader { data: data_out, spare: spare_in }),
                signals: Arc::default(),
            })
        });
        let halves = entry.downcast_mut::<Halves<T>>().ok_or_else(|| format!("edge {} has two item types", key.0))?;
        Ok(f(halves))
    }

    /// The sending end; there is one.
    pub(crate) fn writer<T: Data>(
        &self,
        key: ChannelKey,
        depth: usize,
    ) -> Result<(RingWriter<T>, Arc<Signals>), String> {
        self.with::<T, _>(key, depth, |h| h.writer.take().map(|w| (w, h.signals.clone())))?
            .ok_or_else(|| format!("edge {} from {} to {} has a writer already", key.0, key.1, key.2))
    }

    /// The receiving end; there is one.
    pub(crate) fn reader<T: Data>(
        &self,
        key: ChannelKey,
        depth: usize,
    ) -> Result<(RingReader<T>, Arc<Signals>), String> {
        self.with::<T, _>(key, depth, |h| h.reader.take().map(|r| (r, h.signals.clone())))?
            .ok_or_else(|| format!("edge {} from {} to {} has a reader already", key.0, key.1, key.2))
    }
}

/// Queues within one slot, under one attempt.
#[derive(Default)]
pub(crate) struct LocalWiring(RefCell<HashMap<ChannelKey, Box<dyn Any>>>);

impl LocalWiring {
    pub(crate) fn queue<T: Data>(&self, key: ChannelKey, depth: usize) -> Result<Rc<RefCell<Queue<T>>>, String> {
        let mut all = self.0.borrow_mut();
        let entry = all.entry(key).or_insert_with(|| Box::new(Queue::<T>::new(depth)));
        let queue = entry.downcast_ref::<Rc<RefCell<Queue<T>>>>();
        queue.cloned().ok_or_else(|| format!("edge {} has two item types", key.0))
    }
}
