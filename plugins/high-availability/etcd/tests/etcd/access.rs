//! Who is let in: TLS, client certificates, users, and the words that an operator gets when something is wrong.

use crate::{
    process::{Cluster, Services},
    proxy::pass,
    server::Server,
};
use bytes::Bytes;
use std::{path::PathBuf, time::Duration};
use thalweg_high_availability_etcd::EtcdConfig;
use thalweg_spi::{ErrorKind, Expect, Result, ServiceError, TimeSpan};
use tokio::{io::AsyncReadExt, net::TcpListener};

fn file(place: &Cluster, name: &str, text: &str) -> PathBuf {
    let path = place.place.dir().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Opens a process with these options.
async fn open(server: &Server, change: impl FnOnce(&mut EtcdConfig)) -> Result<Services> {
    Cluster::with(server, change).direct().await
}

/// It leads and writes.
async fn works(services: &Services) {
    let epoch = services.leader_election().campaign().await.unwrap();
    services.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
    services.close().await.unwrap();
}

/// Its kind and words are these.
fn says(error: ServiceError, kind: ErrorKind, words: &[&str]) {
    println!("{error}");
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    for words in words {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
}

async fn refused(server: &Server, change: impl FnOnce(&mut EtcdConfig), kind: ErrorKind, words: &[&str]) {
    says(open(server, change).await.err().expect("it is refused"), kind, words);
}

#[test]
fn tls_is_spoken_and_a_wrong_ca_is_named() {
    let Some(server) = Server::start(&["1", "tls"]) else { return };
    thalweg_testkit::run("tls", async {
        let ca = |name: &str| Some(server.pki(name));
        works(&open(&server, |c| c.ca_file = ca("ca.crt")).await.unwrap()).await;
        let endpoint = server.endpoints()[0].as_str();
        let words = ["not signed by ca-file", "wrong.crt", endpoint];
        refused(&server, |c| c.ca_file = ca("wrong.crt"), ErrorKind::InvalidConfig, &words).await;
        let missing = |c: &mut EtcdConfig| c.ca_file = Some("/none/ca.crt".into());
        refused(&server, missing, ErrorKind::InvalidConfig, &["ca-file /none/ca.crt", "No such file"]).await;
        let plain = |c: &mut EtcdConfig| c.endpoints = vec![endpoint.replace("https", "http")];
        refused(&server, plain, ErrorKind::InvalidConfig, &["speaks TLS, so use https:// and ca-file"]).await;
    });
}

#[test]
fn a_member_without_tls_says_so_to_who_wants_it() {
    let Some(server) = Server::start(&["1"]) else { return };
    let Some(other) = Server::start(&["1", "tls"]) else { return };
    thalweg_testkit::run("no tls", async {
        let secure = |c: &mut EtcdConfig| {
            c.endpoints = vec![server.endpoints()[0].replace("http", "https")];
            c.ca_file = Some(other.pki("ca.crt"));
        };
        refused(&server, secure, ErrorKind::InvalidConfig, &["does not speak TLS"]).await;
    });
}

/// What a member without TLS says in plain text is lost now and then, and only its hanging up is seen.
#[test]
#[expect(clippy::disallowed_methods, reason = "this is what stands where etcd should")]
fn who_hangs_up_during_the_handshake_is_told_from_who_is_not_there() {
    let Some(pki) = Server::start(&["1", "tls"]) else { return };
    for reset in [true, false] {
        thalweg_testkit::run("hangs up", async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("https://{}", listener.local_addr().unwrap());
            let hangs_up = tokio::spawn(async move {
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    // Bytes that nobody has read make the close a reset.
                    let read = if reset { 1 } else { 1 << 16 };
                    let _ = client.read(&mut vec![0; read]).await.unwrap();
                }
            });
            let secure = |c: &mut EtcdConfig| {
                c.endpoints = vec![endpoint.clone()];
                c.ca_file = Some(pki.pki("ca.crt"));
            };
            let words = ["it closed the connection", "does not speak TLS", endpoint.as_str()];
            refused(&pki, secure, ErrorKind::InvalidConfig, &words).await;
            hangs_up.abort();
        });
    }
}

#[test]
fn a_client_certificate_is_shown_where_it_is_demanded() {
    let Some(server) = Server::start(&["1", "mtls", "users"]) else { return };
    thalweg_testkit::run("mtls", async {
        let with = |name: &str| {
            let (ca, certificate) = (server.pki("ca.crt"), server.pki(&format!("{name}.crt")));
            let key = server.pki(&format!("{name}.key"));
            move |c: &mut EtcdConfig| {
                c.ca_file = Some(ca);
                c.certificate_file = Some(certificate);
                c.key_file = Some(key);
            }
        };
        // The certificate names the user.
        works(&open(&server, with("client")).await.unwrap()).await;
        let none = |c: &mut EtcdConfig| c.ca_file = Some(server.pki("ca.crt"));
        let words = ["demands a client certificate", "certificate-file and key-file"];
        refused(&server, none, ErrorKind::InvalidConfig, &words).await;
        refused(&server, with("expired"), ErrorKind::InvalidConfig, &["expired.crt", "expired"]).await;
        let words = ["the user that the certificate names may not use keys under /thalweg/", "grant-permission"];
        refused(&server, with("stranger"), ErrorKind::PermissionDenied, &words).await;
    });
}

#[test]
fn an_expired_certificate_of_a_member_is_named() {
    let Some(server) = Server::start_with(&["1", "tls"], &[("SERVER_CERTIFICATE", "expired")]) else { return };
    thalweg_testkit::run("expired", async {
        let ca = |c: &mut EtcdConfig| c.ca_file = Some(server.pki("ca.crt"));
        let words = ["its certificate has expired", server.endpoints()[0].as_str()];
        refused(&server, ca, ErrorKind::InvalidConfig, &words).await;
    });
}

#[test]
fn users_have_passwords_and_rights() {
    let Some(server) = Server::start_with(&["1", "users"], &[("ETCD_FLAGS", "--auth-token-ttl 2")]) else { return };
    thalweg_testkit::run("users", async {
        let files = Cluster::new(&server);
        let user = |name: &str, password: &str| {
            let (name, file) = (name.to_owned(), file(&files, &format!("{name}-{password}"), &format!("{password}\n")));
            move |c: &mut EtcdConfig| (c.user, c.password_file) = (Some(name), Some(file))
        };
        // Longer than a member may take to start again on a busy machine: the rights are tried here, not the office.
        let long = |c: &mut EtcdConfig| {
            user("app", "app-pw")(c);
            c.lease = TimeSpan::from_secs(30);
        };
        let a = open(&server, long).await.unwrap();
        let epoch = a.leader_election().campaign().await.unwrap();
        a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
        // Tokens end after two idle seconds, and a member forgets them when it starts anew.
        pass(Duration::from_secs(4)).await;
        a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
        server.does("again", 1);
        a.metadata().put(epoch, "k", Bytes::new(), Expect::Any).await.unwrap();
        a.close().await.unwrap();

        let words = ["does not take user \"app\" with the password in password-file"];
        refused(&server, user("app", "secret-x"), ErrorKind::PermissionDenied, &words).await;
        let text = open(&server, user("app", "secret-x")).await.err().unwrap();
        assert!(!format!("{text} {text:?}").contains("secret-x"), "a password is not for logs");
        refused(&server, |_| {}, ErrorKind::PermissionDenied, &["demands a user: set user and password-file"]).await;
        let empty = user("app", "");
        refused(&server, empty, ErrorKind::InvalidConfig, &["password-file", "it is empty"]).await;
        let words = ["user \"app\" may not use keys under /elsewhere/", "grant-permission"];
        let elsewhere = |c: &mut EtcdConfig| {
            user("app", "app-pw")(c);
            c.prefix = "/elsewhere".into();
        };
        refused(&server, elsewhere, ErrorKind::PermissionDenied, &words).await;
        // Who may only read finds the leader, as a TaskManager does, and is told at once that it cannot lead.
        let reader = open(&server, user("reader", "reader-pw")).await.unwrap();
        assert_eq!(reader.metadata().list("").await.unwrap(), []);
        let error = reader.leader_election().campaign().await.unwrap_err();
        says(error, ErrorKind::PermissionDenied, &["user \"reader\" may not use keys under /thalweg/", "readwrite"]);
    });
}

#[test]
fn a_user_where_there_are_none_is_told() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("no users", async {
        let files = Cluster::new(server);
        let password = file(&files, "pw", "x");
        let user = |c: &mut EtcdConfig| (c.user, c.password_file) = (Some("app".into()), Some(password));
        refused(server, user, ErrorKind::PermissionDenied, &["no users switched on"]).await;
    });
}

#[test]
fn an_etcd_that_is_not_there_is_named_with_each_endpoint() {
    let Some(server) = Server::shared() else { return };
    thalweg_testkit::run("away", async {
        let away = ["http://127.0.0.1:1", "http://127.0.0.1:2"].map(str::to_owned);
        let words = ["http://127.0.0.1:1", "http://127.0.0.1:2", "is etcd running", "endpoints"];
        refused(server, |c| c.endpoints = away.to_vec(), ErrorKind::Unavailable, &words).await;
        // One that answers is enough.
        let some = |c: &mut EtcdConfig| c.endpoints.insert(0, away[0].clone());
        works(&open(server, some).await.unwrap()).await;
    });
}
