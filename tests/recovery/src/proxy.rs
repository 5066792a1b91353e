//! One process's way to a server, which can be cut as a network is that loses packets: nothing is passed on and nothing is
//! closed. When it heals, what waited arrives late, as it does when packets are sent again, also if its sender is gone by then.

#![allow(clippy::disallowed_methods, reason = "this is the network between two real processes")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a way does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All is passed on.
    Open,
    /// Nothing is passed on. New connections are taken, and as silent.
    Silent,
    /// The same for connections that are there. New ones are refused.
    Refusing,
    /// Nobody wants it any more.
    Ended,
}

struct Rule {
    way: Mutex<Way>,
    changed: Condvar,
}

impl Rule {
    fn now(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, way: Way) {
        *self.now() = way;
        self.changed.notify_all();
    }

    /// Waits as long as nothing is passed on; `false` when nothing will be.
    fn opens(&self) -> bool {
        let cut = |way: &mut Way| matches!(way, Way::Silent | Way::Refusing);
        let way = self.changed.wait_while(self.now(), cut).unwrap_or_else(PoisonError::into_inner);
        *way == Way::Open
    }
}

/// See the module.
pub struct Proxy {
    address: SocketAddr,
    rule: Arc<Rule>,
}

impl Proxy {
    /// A way to `http://host:port`, open.
    pub fn to(endpoint: &str) -> Self {
        let server: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let rule = Arc::new(Rule { way: Mutex::new(Way::Open), changed: Condvar::new() });
        let of_listener = rule.clone();
        std::thread::spawn(move || listen(address, server, listener, &of_listener));
        Self { address, rule }
    }

    /// Where it listens: `http://host:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it does this.
    pub fn set(&self, way: Way) {
        self.rule.set(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.rule.set(Way::Ended);
    }
}

fn listen(address: SocketAddr, server: SocketAddr, listener: TcpListener, rule: &Arc<Rule>) {
    let mut listener = Some(listener);
    loop {
        let way = *rule.now();
        match way {
            Way::Ended => return,
            // Only without a listener the system refuses.
            Way::Refusing => listener = None,
            // Somebody may have the port for a moment; then at the next look.
            Way::Open | Way::Silent if listener.is_none() => listener = TcpListener::bind(address).ok(),
            Way::Open | Way::Silent => {}
        }
        let taken = listener.as_ref().and_then(|l| l.set_nonblocking(true).and_then(|()| l.accept()).ok());
        match taken {
            Some((near, _)) => {
                let rule = rule.clone();
                std::thread::spawn(move || carry(near, server, &rule));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn carry(near: TcpStream, server: SocketAddr, rule: &Arc<Rule>) {
    if near.set_nonblocking(false).is_err() || !rule.opens() {
        return;
    }
    let Ok(far) = TcpStream::connect(server) else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { return };
    let back = rule.clone();
    std::thread::spawn(move || pump(far_too, near_too, &back));
    pump(near, far, rule);
}

fn pump(mut from: TcpStream, mut to: TcpStream, rule: &Rule) {
    let mut bytes = [0; 16 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap_or(0),
        };
        // An end is passed on no sooner than bytes are.
        if !rule.opens() || read == 0 || to.write_all(&bytes[..read]).is_err() {
            let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
            return;
        }
    }
}
