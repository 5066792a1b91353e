//! Calls over real and in-memory transports, and the handshake's refusals.

use super::*;
use crate::{Fence, Mailbox, Target, mailbox};
use std::sync::atomic::{AtomicU32, Ordering};
use thalweg_env::MemoryNetwork;
use tokio::io::AsyncWriteExt;

crate::gateway! {
    /// Adds.
    pub gateway AdderGateway, AdderMessage {
        ask {
            /// Adds.
            Add = add(a: u32, b: u32) -> u32;
            /// Says nothing for ever.
            Silent = silent() -> ();
            /// Answers a blob of so many bytes.
            Large = large(bytes: usize) -> Bytes;
        }
        tell {
            /// Counts.
            Count = count(by: u32);
        }
    }
}

fn env() -> Env {
    Env::in_process(tokio::runtime::Handle::current())
}

fn settings(cluster: &str, secret: &'static str) -> RpcSettings {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut instance = [0; 16];
    instance[..4].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    RpcSettings {
        role: Role::JobManager,
        cluster: ClusterId::new(cluster),
        instance: InstanceId::from_bytes(instance),
        secret: Secret::new(secret),
        timeout: Duration::from_secs(30),
        max_frame: 1 << 20,
    }
}

fn service(env: &Env, cluster: &str, secret: &'static str) -> RpcService {
    RpcService::new(env.clone(), settings(cluster, secret), Shutdown::new())
}

fn serve_adder(service: &RpcService) -> Arc<AtomicU32> {
    let (sender, mut calls): (_, Mailbox<AdderMessage>) = mailbox();
    service.serve("adder", sender);
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    service.env().spawner.spawn("adder", async move {
        let mut silent = Vec::new();
        while let Some(call) = calls.recv().await {
            match call.message {
                AdderMessage::Add { a, b, reply } => reply.send(Ok(a + b)),
                AdderMessage::Silent { reply } => silent.push(reply),
                AdderMessage::Large { bytes, reply } => reply.send(Ok(vec![0; bytes].into())),
                AdderMessage::Count { by } => drop(counted.fetch_add(by, Ordering::SeqCst)),
            }
        }
    });
    count
}

fn adder(connection: &Connection) -> AdderGateway {
    AdderGateway::new(Target::remote(connection.clone(), "adder", Fence::default()))
}

async fn both_ways(env: Env, at: Address) {
    let (server, client) = (service(&env, "c", "s"), service(&env, "c", "s"));
    let at = server.listen(&at).await.unwrap();
    let (on_server, on_client) = (serve_adder(&server), serve_adder(&client));
    let connection = client.connect(&at).await.unwrap();
    assert_eq!(connection.peer_id().0, server.instance());
    let gateway = adder(&connection);
    for i in 0..100 {
        gateway.count(1).unwrap();
        assert_eq!(gateway.add(i, 1).await, Ok(i + 1));
        assert_eq!(on_server.load(Ordering::SeqCst), i + 1, "posted in the order of arrival");
    }
    assert_eq!(on_client.load(Ordering::SeqCst), 0);
    let again = client.connect(&at).await.unwrap();
    assert_eq!(again.peer_id(), connection.peer_id());
    connection.close();
    assert_eq!(gateway.add(1, 1).await, Err(RpcError::Closed));
    assert_eq!(adder(&client.connect(&at).await.unwrap()).add(1, 1).await, Ok(2), "dialled anew");
}

#[tokio::test]
async fn calls_are_answered_over_every_transport() {
    let dir = tempfile::tempdir().unwrap();
    let system = Env::system(tokio::runtime::Handle::current());
    both_ways(env(), Address::Memory("jm".into())).await;
    both_ways(system.clone(), Address::Tcp("127.0.0.1:0".into())).await;
    both_ways(system, Address::Unix(dir.path().join("rpc"))).await;
}

#[tokio::test]
async fn the_callee_can_call_back_on_the_same_connection() {
    let env = env();
    let (server, client) = (service(&env, "c", "s"), service(&env, "c", "s"));
    let at = server.listen(&Address::Memory("jm".into())).await.unwrap();
    serve_adder(&client);
    let (sender, mut calls): (_, Mailbox<AdderMessage>) = mailbox();
    server.serve("adder", sender);
    let connection = client.connect(&at).await.unwrap();
    adder(&connection).count(0).unwrap();
    let caller = calls.recv().await.unwrap().caller;
    assert_eq!(adder(&caller.connection.unwrap()).add(20, 3).await, Ok(23));
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_and_may_have_happened() {
    let env = env();
    let impatient = RpcSettings { timeout: Duration::from_millis(500), ..settings("c", "s") };
    let client = RpcService::new(env.clone(), impatient, Shutdown::new());
    let server = service(&env, "c", "s");
    let at = server.listen(&Address::Memory("jm".into())).await.unwrap();
    serve_adder(&server);
    let gateway = adder(&client.connect(&at).await.unwrap());
    let error = gateway.silent().await.unwrap_err();
    assert_eq!(error, RpcError::Timeout);
    assert!(error.may_have_happened() && error.may_retry());
}

#[tokio::test]
async fn what_is_not_there_or_too_large_is_said() {
    let env = env();
    let (server, client) = (service(&env, "c", "s"), service(&env, "c", "s"));
    let at = server.listen(&Address::Memory("jm".into())).await.unwrap();
    let connection = client.connect(&at).await.unwrap();
    assert_eq!(adder(&connection).add(1, 1).await, Err(RpcError::Fault(Fault::NoEndpoint("adder".into()))));
    serve_adder(&server);
    let answer = adder(&connection).large(2 << 20).await;
    assert!(matches!(&answer, Err(RpcError::Fault(Fault::Refused(m))) if m.contains("over the limit")), "{answer:?}");
    let bad = connection.ask("adder", Fence::default(), "add", Bytes::from_static(&[0xc1])).await;
    assert!(matches!(bad, Err(RpcError::Fault(Fault::BadCall(_)))), "{bad:?}");
    let bad = connection.ask("adder", Fence::default(), "subtract", Bytes::new()).await;
    assert!(matches!(bad, Err(RpcError::Fault(Fault::BadCall(_)))), "{bad:?}");
    let body = Bytes::from(vec![0; 2 << 20]);
    let large = connection.ask("adder", Fence::default(), "add", body).await;
    assert!(matches!(large, Err(RpcError::TooLarge { .. })), "{large:?}");
    assert_eq!(adder(&connection).add(1, 1).await, Ok(2), "the connection lives on");
}

#[tokio::test]
async fn another_cluster_or_secret_is_refused_in_words() {
    let env = env();
    let server = service(&env, "c", "s");
    let at = server.listen(&Address::Memory("jm".into())).await.unwrap();
    let other = service(&env, "other", "s").connect(&at).await.unwrap_err();
    assert!(matches!(&other, RpcError::HandshakeRefused { reason, .. } if reason.contains("this is cluster \"c\"")));
    let thief = service(&env, "c", "guess").connect(&at).await.unwrap_err();
    assert!(matches!(&thief, RpcError::HandshakeRefused { reason, .. } if reason.contains("secret")));
    assert!(!thief.may_retry());
    let nobody = service(&env, "c", "s").connect(&Address::Memory("nobody".into())).await.unwrap_err();
    assert!(nobody.is_refused_connection());
}

#[tokio::test]
async fn garbage_closes_a_connection_and_hurts_nobody_else() {
    let env = Env { network: Arc::new(MemoryNetwork::default()), ..env() };
    let (server, client) = (service(&env, "c", "s"), service(&env, "c", "s"));
    let at = server.listen(&Address::Memory("jm".into())).await.unwrap();
    serve_adder(&server);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0, 0, 0, 4, 1, 2, 3, 4], &[0xff, 0xff, 0xff, 0xff]] {
        let mut stream = env.network.connect(&at).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await.unwrap();
    }
    assert_eq!(adder(&client.connect(&at).await.unwrap()).add(1, 2).await, Ok(3));
}
