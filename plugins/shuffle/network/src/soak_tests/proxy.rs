//! A network in which one connection suffers one fault. Two real TCP connections with a pump in each direction.

use futures::future::BoxFuture;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use thalweg_env::{Address, BoxStream, Listener, Network, Shutdown, SystemNetwork};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// What is done to one direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Both sides are closed.
    Close,
    /// Both sides are closed as the system does it when a process has vanished.
    Reset,
    /// The receiver hears that nothing follows; the other direction goes on.
    HalfClose,
    /// One bit changes.
    Flip,
    /// Bytes are left out.
    Drop(usize),
    /// Bytes come twice.
    Double(usize),
    /// Nothing is carried any more, and nothing is closed.
    Silence {
        both: bool,
    },
    None,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) fault: Fault,
    /// In the direction of who dialed, or against it.
    pub(super) forth: bool,
    /// After so many bytes.
    pub(super) at: usize,
}

pub(super) struct Proxy {
    plan: Plan,
    line: Line,
}

/// What the two pumps of a connection share.
#[derive(Clone)]
struct Line {
    struck: Arc<AtomicBool>,
    cut: Shutdown,
    silent: Shutdown,
    over: Shutdown,
}

impl Proxy {
    pub(super) fn new(plan: Plan) -> Self {
        let (struck, cut, silent, over) = (Arc::default(), Shutdown::new(), Shutdown::new(), Shutdown::new());
        Self { plan, line: Line { struck, cut, silent, over } }
    }

    /// Has the fault happened?
    pub(super) fn has_struck(&self) -> bool {
        self.line.struck.load(Ordering::SeqCst)
    }

    /// Nothing happens any more, and silent connections are closed.
    pub(super) fn over(&self) {
        self.line.struck.store(true, Ordering::SeqCst);
        self.line.over.trigger();
    }
}

impl Network for Proxy {
    fn listen<'a>(&'a self, at: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        SystemNetwork.listen(at)
    }

    fn connect<'a>(&'a self, to: &'a Address) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let listener = SystemNetwork.listen(&Address::Tcp("127.0.0.1:0".into())).await?;
            let front = listener.address();
            let (dialed, accepted) = tokio::join!(SystemNetwork.connect(&front), listener.accept());
            let (BoxStream::Tcp(near), BoxStream::Tcp(far)) = (accepted?.0, SystemNetwork.connect(to).await?) else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            // Of two that dial each other at once one is not used: the fault is for the first that gets so far.
            let line = Line { cut: Shutdown::new(), silent: Shutdown::new(), ..self.line.clone() };
            tokio::runtime::Handle::current().spawn(carry(near, far, self.plan, line));
            dialed
        })
    }
}

async fn carry(near: TcpStream, far: TcpStream, plan: Plan, line: Line) {
    if plan.fault == Fault::Reset {
        for side in [&near, &far] {
            side.set_zero_linger().unwrap();
        }
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let none = Plan { fault: Fault::None, ..plan };
    let (forth, back) = if plan.forth { (plan, none) } else { (none, plan) };
    tokio::join!(pump(near_in, far_out, forth, line.clone()), pump(far_in, near_out, back, line));
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut plan: Plan, line: Line) {
    let mut buffer = vec![0; 16 * 1024];
    let mut seen = 0;
    loop {
        let n = tokio::select! {
            () = line.cut.triggered() => return,
            () = line.silent.triggered() => return line.over.triggered().await,
            n = from.read(&mut buffer) => n,
        };
        let Ok(n @ 1..) = n else { break };
        let mut piece = buffer[..n].to_vec();
        if plan.fault != Fault::None && seen + n > plan.at && !line.struck.swap(true, Ordering::SeqCst) {
            let at = plan.at - seen;
            match std::mem::replace(&mut plan.fault, Fault::None) {
                Fault::None => {}
                Fault::Flip => piece[at] ^= 1 << (plan.at % 8),
                Fault::Drop(bytes) => drop(piece.drain(at..(at + bytes).min(n))),
                Fault::Double(bytes) => {
                    let again = piece[at..(at + bytes).min(n)].to_vec();
                    piece.splice(at..at, again);
                }
                Fault::Close | Fault::Reset => {
                    let _ = to.write_all(&piece[..at]).await;
                    return line.cut.trigger();
                }
                Fault::HalfClose => {
                    let _ = to.write_all(&piece[..at]).await;
                    let _ = to.shutdown().await;
                    // What is sent this way is lost, and not refused.
                    while matches!(from.read(&mut buffer).await, Ok(1..)) {}
                    return;
                }
                Fault::Silence { both } => {
                    let _ = to.write_all(&piece[..at]).await;
                    if both {
                        line.silent.trigger();
                    }
                    return line.over.triggered().await;
                }
            }
        }
        // Once is enough, and who dials again gets through.
        if seen + n > plan.at {
            plan.fault = Fault::None;
        }
        seen += n;
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
