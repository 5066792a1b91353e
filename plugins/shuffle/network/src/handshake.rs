//! The first frame of each side: who it is, for which job, and that it knows the job's secret.
//!
//! ```text
//!  dialer    magic, protocol, secret, job, incarnation, data address ──▶  acceptor
//!            ◀── verdict: welcome, duplicate or refused; its own secret and incarnation
//! ```
//!
//! Each ends with a checksum, and nothing else is read before them. A wrong secret is answered by closing the connection,
//! with nothing to learn from.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io;
use thalweg_model::JobId;
use thalweg_spi::Secret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 8] = b"thalshuf";
/// Grows with each change of the frames; both sides are one executable, so they must be equal.
pub(crate) const PROTOCOL: u32 = 2;
/// Longest first frame.
const MAX_HELLO: usize = 4096;

/// What a host says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) job: JobId,
    /// One life of one process: another process may come to listen at the same address.
    pub(crate) incarnation: [u8; 16],
    pub(crate) address: String,
    pub(crate) secret: Bytes,
}

/// The acceptor's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This connection is the one between the two.
    Welcome { incarnation: [u8; 16], secret: Bytes },
    /// Another connection between the two is, or will be.
    Duplicate { secret: Bytes },
    /// The two do not fit together.
    Refused { text: String, secret: Bytes },
}

fn bad(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16_le(bytes.len() as u16);
    out.put_slice(bytes);
}

fn get_bytes(rest: &mut Bytes) -> io::Result<Bytes> {
    let length = rest.try_get_u16_le().map_err(|_| bad("the first frame is too short"))?;
    if rest.len() < length as usize {
        return Err(bad("the first frame is too short"));
    }
    Ok(rest.split_to(length as usize))
}

fn get_array<const N: usize>(rest: &mut Bytes) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    rest.try_copy_to_slice(&mut bytes).map_err(|_| bad("the first frame is too short"))?;
    Ok(bytes)
}

fn get_text(rest: &mut Bytes) -> io::Result<String> {
    String::from_utf8(get_bytes(rest)?.to_vec()).map_err(|_| bad("the first frame holds no text"))
}

async fn write(to: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let mut out = BytesMut::with_capacity(body.len() + 20);
    out.put_slice(MAGIC);
    out.put_u32_le(body.len() as u32);
    out.put_slice(body);
    out.put_u64_le(xxh3_64(body));
    to.write_all(&out).await?;
    to.flush().await
}

async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Bytes> {
    let mut head = [0; 12];
    from.read_exact(&mut head).await?;
    if &head[..8] != MAGIC {
        return Err(bad("it does not speak our protocol"));
    }
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if length > MAX_HELLO {
        return Err(bad("the first frame is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    if from.read_u64_le().await? != xxh3_64(&body) {
        return Err(bad("the first frame was damaged on its way"));
    }
    Ok(body.into())
}

/// Sends the dialer's first frame.
pub(crate) async fn send_hello(to: &mut (impl AsyncWrite + Unpin), hello: &Hello) -> io::Result<()> {
    let mut out = BytesMut::new();
    out.put_u32_le(hello.protocol);
    put_bytes(&mut out, &hello.secret);
    out.put_slice(hello.job.as_bytes());
    out.put_slice(&hello.incarnation);
    put_bytes(&mut out, hello.address.as_bytes());
    write(to, &out).await
}

/// Reads the dialer's first frame; an error unless it shows the secret.
pub(crate) async fn read_hello(from: &mut (impl AsyncRead + Unpin), secret: &Secret) -> io::Result<Hello> {
    let mut rest = read(from).await?;
    let protocol = rest.try_get_u32_le().map_err(|_| bad("the first frame is too short"))?;
    let shown = get_bytes(&mut rest)?;
    if !secret.matches(&shown) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it did not show the job's secret"));
    }
    let job = JobId::from_bytes(get_array(&mut rest)?);
    let incarnation = get_array(&mut rest)?;
    Ok(Hello { protocol, job, incarnation, address: get_text(&mut rest)?, secret: shown })
}

/// Sends the acceptor's answer.
pub(crate) async fn send_verdict(to: &mut (impl AsyncWrite + Unpin), verdict: &Verdict) -> io::Result<()> {
    let mut out = BytesMut::new();
    match verdict {
        Verdict::Welcome { incarnation, secret } => {
            out.put_u8(0);
            put_bytes(&mut out, secret);
            out.put_slice(incarnation);
        }
        Verdict::Duplicate { secret } => {
            out.put_u8(1);
            put_bytes(&mut out, secret);
        }
        Verdict::Refused { text, secret } => {
            out.put_u8(2);
            put_bytes(&mut out, secret);
            put_bytes(&mut out, text.as_bytes());
        }
    }
    write(to, &out).await
}

/// Reads the acceptor's answer; an error unless it shows the secret.
pub(crate) async fn read_verdict(from: &mut (impl AsyncRead + Unpin), secret: &Secret) -> io::Result<Verdict> {
    let mut rest = read(from).await.map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(
            io::ErrorKind::PermissionDenied,
            "it closed the connection at the first frame: the host of another job or cluster listens there, or \
             the connection was cut",
        ),
        _ => e,
    })?;
    let which = rest.try_get_u8().map_err(|_| bad("the first frame is too short"))?;
    let shown = get_bytes(&mut rest)?;
    if !secret.matches(&shown) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it did not show the job's secret"));
    }
    match which {
        0 => Ok(Verdict::Welcome { incarnation: get_array(&mut rest)?, secret: shown }),
        1 => Ok(Verdict::Duplicate { secret: shown }),
        2 => Ok(Verdict::Refused { text: get_text(&mut rest)?, secret: shown }),
        _ => Err(bad("it gave an answer that is none")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes in memory are never waited for.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        futures::FutureExt::now_or_never(future).unwrap()
    }

    fn hello() -> Hello {
        let secret = Bytes::from_static(b"s");
        let (job, address) = (JobId::from_bytes([1; 16]), "tcp://127.0.0.1:1".to_owned());
        Hello { protocol: PROTOCOL, job, incarnation: [2; 16], address, secret }
    }

    fn sent(hello: &Hello) -> Vec<u8> {
        let mut bytes = Vec::new();
        at_once(send_hello(&mut bytes, hello)).unwrap();
        bytes
    }

    fn received(bytes: &[u8], secret: &'static str) -> io::Result<Hello> {
        at_once(read_hello(&mut &bytes[..], &Secret::new(secret)))
    }

    #[test]
    fn a_hello_is_read_by_who_knows_the_secret() {
        assert_eq!(received(&sent(&hello()), "s").unwrap(), hello());
        assert_eq!(received(&sent(&hello()), "t").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let mut long = sent(&hello());
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(received(&long, "s").unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn a_verdict_comes_back_as_it_went() {
        let secret = Bytes::from_static(b"s");
        for verdict in [
            Verdict::Welcome { incarnation: [3; 16], secret: secret.clone() },
            Verdict::Duplicate { secret: secret.clone() },
            Verdict::Refused { text: "no".into(), secret },
        ] {
            let mut bytes = Vec::new();
            at_once(send_verdict(&mut bytes, &verdict)).unwrap();
            let read = at_once(read_verdict(&mut &bytes[..], &Secret::new("s")));
            assert_eq!(read.unwrap(), verdict);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_handshake_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..80, to in any::<u8>()) {
            let _ = received(&bytes, "s");
            let mut changed = sent(&hello());
            let at = at % changed.len();
            changed[at] = to;
            let _ = received(&changed, "s");
            let _ = received(&changed[..at], "s");
            let _ = at_once(read_verdict(&mut &bytes[..], &Secret::new("s")));
        }
    }
}
