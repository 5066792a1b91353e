//! Which JobManager is asked, for how long, and what whoever waits is told.

#![allow(clippy::disallowed_methods, reason = "real sockets are what is tested")]

use super::*;
use std::sync::Arc;
use thalweg_testkit::eventually;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

/// What whoever waits was told.
#[derive(Clone, Default)]
pub(crate) struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn listen(&self) -> impl Fn(&str) + Sync + use<> {
        let told = self.0.clone();
        move |message| told.lock().push(message.to_owned())
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }

    /// One line when it went, one when it came back.
    pub(crate) fn is_away_and_back(told: &[String]) {
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("the cluster does not answer, trying for 60 s"), "{told:?}");
        assert_eq!(told[1], "the cluster answers again");
    }
}

/// Answers every request in the same way, and counts.
struct Answers {
    at: String,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Answers {
    async fn start(at: &str, status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { at, asked, task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An address at which nobody listens.
async fn nobody() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

const LIMIT: Duration = Duration::from_secs(5);

fn get(http: &Client, at: &str) -> Result<RequestBuilder, String> {
    Ok(http.get(format!("{at}/x")))
}

#[test]
fn a_dead_address_is_passed_over_and_the_one_that_answered_is_asked_first_from_then_on() {
    thalweg_testkit::run("order", async {
        let unavailable =
            Answers::start("127.0.0.1:0", "503 Service Unavailable", "{\"errors\":[\"no leader\"]}").await;
        let good = Answers::start("127.0.0.1:0", "200 OK", "yes").await;
        let rest = ClusterRest::new([nobody().await, unavailable.url(), good.url()], None);
        for _ in 0..3 {
            assert_eq!(rest.ask(get, LIMIT).await.unwrap(), "yes");
        }
        assert_eq!((unavailable.asked(), good.asked()), (1, 3));
    });
}

#[test]
fn one_that_hangs_is_given_its_time_and_no_more() {
    thalweg_testkit::run("hang", async {
        let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = Answers::start("127.0.0.1:0", "200 OK", "yes").await;
        let rest = ClusterRest::new([format!("http://{}", hangs.local_addr().unwrap()), good.url()], None);
        assert_eq!(rest.ask(get, Duration::from_secs(3)).await.unwrap(), "yes");
    });
}

#[test]
fn a_refusal_is_final_and_in_the_clusters_words() {
    thalweg_testkit::run("refusal", async {
        let refuses = Answers::start("127.0.0.1:0", "409 Conflict", "{\"errors\":[\"not twice\"]}").await;
        let other = Answers::start("127.0.0.1:0", "200 OK", "yes").await;
        let (rest, told) = (ClusterRest::new([refuses.url(), other.url()], None), Told::default());
        let refused = rest.ask_patiently(get, LIMIT, &told.listen()).await.unwrap_err();
        assert!(matches!(&refused, Failure::Refused { status: 409, message } if message == "not twice"), "{refused:?}");
        assert_eq!((other.asked(), told.all().len()), (0, 0));
    });
}

#[test]
fn where_nobody_ever_answered_nobody_waits() {
    thalweg_testkit::run("mistyped", async {
        let told = Told::default();
        let (one, other) = (nobody().await, nobody().await);
        for addresses in [vec![one.clone()], vec![one.clone(), other.clone()]] {
            let rest = ClusterRest::new(addresses.clone(), None);
            let failure = rest.ask_patiently(get, LIMIT, &told.listen()).await.unwrap_err().to_string();
            let named = addresses.iter().all(|a| failure.contains(a.as_str()));
            assert!(named && failure.contains("is it running?"), "{failure}");
        }
        assert!(told.all().is_empty());
    });
}

#[test]
fn a_cluster_that_goes_and_comes_back_is_waited_for_and_both_are_told_once() {
    thalweg_testkit::run("two wait", async {
        let first = Answers::start("127.0.0.1:0", "200 OK", "before").await;
        let (rest, told) = (Arc::new(ClusterRest::new([first.url()], None)), Told::default());
        assert_eq!(rest.ask_patiently(get, LIMIT, &told.listen()).await.unwrap(), "before");
        first.task.abort();
        let _ = first.task.await;
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (rest, told) = (rest.clone(), told.clone());
                tokio::spawn(async move { rest.ask_patiently(get, LIMIT, &told.listen()).await })
            })
            .collect();
        eventually("it is told", LIMIT, async || (told.all().len() == 1).then_some(())).await;
        let _second = Answers::start(&first.at, "200 OK", "after").await;
        for waits in waiting {
            assert_eq!(waits.await.unwrap().unwrap(), "after");
        }
        Told::is_away_and_back(&told.all());
    });
}
