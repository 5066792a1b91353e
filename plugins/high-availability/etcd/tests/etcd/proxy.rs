//! A way to a member that can be cut: silently, as a lost network is, or with a reset, as a dead process is.

use std::{net::SocketAddr, sync::Arc};
use thalweg_env::SystemClock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What the way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Bytes of these directions wait; connections stay.
    Silent {
        there: bool,
        back: bool,
    },
    /// Connections are closed and new ones are not taken.
    Closed,
}

/// One process's way to one member.
pub struct Proxy {
    address: SocketAddr,
    way: Arc<watch::Sender<Way>>,
}

#[expect(clippy::disallowed_methods, reason = "this is the network between the plugin's own client and etcd")]
impl Proxy {
    /// A way to `endpoint`, open.
    pub async fn to(endpoint: &str) -> Self {
        let member: SocketAddr = endpoint.split("://").nth(1).unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(watch::Sender::new(Way::Open));
        let weak = Arc::downgrade(&way);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Some(way) = weak.upgrade() else { return };
                let rule = way.subscribe();
                tokio::spawn(async move {
                    if *rule.borrow() == Way::Closed {
                        return;
                    }
                    let Ok(far) = TcpStream::connect(member).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    let mut closed = rule.clone();
                    tokio::select! {
                        _ = closed.wait_for(|way| *way == Way::Closed) => {}
                        () = pump(near_in, far_out, rule.clone(), |there, _| there) => {}
                        () = pump(far_in, near_out, rule, |_, back| back) => {}
                    }
                });
            }
        });
        Self { address, way }
    }

    /// The same endpoint through this way.
    pub fn endpoint(&self, of: &str) -> String {
        format!("{}://{}", of.split("://").next().unwrap(), self.address)
    }

    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut rule: watch::Receiver<Way>,
    cut: fn(bool, bool) -> bool,
) {
    let waits = move |way: &Way| matches!(*way, Way::Silent { there, back } if cut(there, back));
    let mut bytes = vec![0; 64 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        if rule.wait_for(|way| !waits(way)).await.is_err() || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits, by the system's clock.
pub async fn pass(duration: std::time::Duration) {
    use thalweg_env::Clock as _;
    SystemClock::new().sleep(duration).await;
}
