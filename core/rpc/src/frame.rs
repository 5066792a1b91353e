//! What travels on a connection: length-delimited MessagePack frames, at most `rpc.max-frame` each.

use crate::{error::Fault, handshake::Hello};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thalweg_model::{Epoch, JobId};

/// Whose call this is: compared by the callee's core with the highest epoch it has seen for that component.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The job whose JobMaster calls or is called; `None` for ResourceManager and Dispatcher.
    pub job: Option<JobId>,
    /// The leader's epoch: the caller's own when a leader calls, else the one that the caller believes in.
    pub epoch: Epoch,
}

impl Fence {
    /// A cluster-wide component of this epoch.
    pub fn cluster(epoch: Epoch) -> Self {
        Self { job: None, epoch }
    }

    /// The JobMaster of this job and epoch.
    pub fn job(job: JobId, epoch: Epoch) -> Self {
        Self { job: Some(job), epoch }
    }
}

/// The highest epoch that a callee has seen. Part of the callee's core: every call is admitted here first.
///
/// One number for all components: a process has one office, so a JobMaster below the epoch that a ResourceManager has
/// shown is deposed, whether or not its own job was heard of since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fences {
    highest: Epoch,
}

impl Fences {
    /// Lets the call pass and remembers its epoch, or refuses it because a higher one was seen.
    pub fn admit(&mut self, fence: Fence) -> Result<(), Fault> {
        if fence.epoch < self.highest {
            return Err(Fault::Fenced { called: fence.epoch.0, present: self.highest.0 });
        }
        self.highest = fence.epoch;
        Ok(())
    }
}

/// Is a call meant for the leader of this epoch? A leader refuses calls that believe in another.
pub fn is_for(own: Epoch, fence: Fence) -> Result<(), Fault> {
    if fence.epoch == own { Ok(()) } else { Err(Fault::Fenced { called: fence.epoch.0, present: own.0 }) }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Frame {
    /// The first frame of either side.
    Hello(Hello),
    /// Instead of a `Hello`: why not. The connection closes behind it.
    Refuse(String),
    /// A call. `call` is 0 when no answer is wanted.
    Call {
        call: u64,
        endpoint: String,
        fence: Fence,
        /// Milliseconds that the caller will wait, from when it was sent.
        deadline: u32,
        method: String,
        body: Bytes,
    },
    /// The answer to a call.
    Answer { call: u64, outcome: Result<Bytes, Fault> },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use thalweg_wire::{decode, encode};

    #[test]
    fn frames_come_back_as_they_went() {
        let frame = Frame::Call {
            call: 7,
            endpoint: "dispatcher".into(),
            fence: Fence::cluster(Epoch(3)),
            deadline: 10_000,
            method: "submit_job".into(),
            body: Bytes::from_static(&[0, 1, 255]),
        };
        assert_eq!(decode::<Frame>(&encode(&frame), 1 << 20).unwrap(), frame);
        let frame = Frame::Answer { call: 7, outcome: Err(Fault::Fenced { called: 1, present: 2 }) };
        assert_eq!(decode::<Frame>(&encode(&frame), 1 << 20).unwrap(), frame);
    }

    #[test]
    fn a_fence_refuses_what_is_lower_and_remembers_what_is_higher() {
        let mut fences = Fences::default();
        let job = JobId::from_bytes([1; 16]);
        assert_eq!(fences.admit(Fence::cluster(Epoch(2))), Ok(()));
        assert_eq!(fences.admit(Fence::cluster(Epoch(2))), Ok(()));
        assert_eq!(fences.admit(Fence::cluster(Epoch(1))), Err(Fault::Fenced { called: 1, present: 2 }));
        let deposed = Err(Fault::Fenced { called: 1, present: 2 });
        assert_eq!(fences.admit(Fence::job(job, Epoch(1))), deposed, "a JobMaster of a lower epoch is deposed too");
        assert_eq!(fences.admit(Fence::job(job, Epoch(3))), Ok(()));
        assert_eq!(is_for(Epoch(2), Fence::cluster(Epoch(3))), Err(Fault::Fenced { called: 3, present: 2 }));
    }

    proptest! {
        #[test]
        fn garbage_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Frame>(&bytes, 1 << 16);
        }
    }
}
