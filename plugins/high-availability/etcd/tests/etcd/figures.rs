//! Figures for the documents; not tests, and ignored as such.

use crate::{process::Cluster, proxy::pass, server::Server};
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    time::Duration,
};
use thalweg_spi::TimeSpan;

/// Requests and messages that the member has taken, by method.
#[expect(clippy::disallowed_methods, reason = "asks etcd itself, not through the plugin")]
fn taken(server: &Server) -> BTreeMap<String, u64> {
    let address = server.endpoints()[0].trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let counted =
        |line: &&str| line.starts_with("grpc_server_started_total") || line.starts_with("grpc_server_msg_received");
    let parse = |line: &str| {
        let method = line.split("grpc_method=\"").nth(1)?.split('"').next()?;
        let what = if line.starts_with("grpc_server_started") { "calls" } else { "messages" };
        Some((format!("{method} {what}"), line.rsplit(' ').next()?.parse().ok()?))
    };
    text.lines().filter(counted).filter_map(parse).filter(|(_, count)| *count > 0).collect()
}

#[test]
#[ignore = "takes 100 s and measures"]
fn what_an_idle_cluster_asks() {
    let Some(server) = Server::start(&["1"]) else { return };
    thalweg_testkit::run("idle", async {
        let cluster = Cluster::with(&server, |c| c.lease = TimeSpan::from_secs(10));
        let (leader, standby) = (cluster.direct().await.unwrap(), cluster.direct().await.unwrap());
        let _watchers = [cluster.direct().await.unwrap(), cluster.direct().await.unwrap()];
        leader.leader_election().campaign().await.unwrap();
        let election = standby.leader_election();
        let idle = async {
            pass(Duration::from_secs(1)).await;
            let before = taken(&server);
            pass(Duration::from_secs(100)).await;
            for (what, count) in taken(&server) {
                let more = count - before.get(&what).copied().unwrap_or(0);
                if more > 0 {
                    println!("{what}: {more} in 100 s, of a leader, a standby and two watchers");
                }
            }
        };
        tokio::select! { _ = election.campaign() => panic!("office was free"), () = idle => {} }
    });
}
