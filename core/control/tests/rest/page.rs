//! The page at `/`: served whole, from here, and careful with other people's text.

use crate::cluster::{Cluster, run};
use reqwest::Method;

#[test]
fn the_page_comes_with_all_that_it_needs() {
    run("page", async {
        let cluster = Cluster::start().await;
        for (route, kind) in [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")] {
            let answer = cluster.request(Method::GET, route).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert!(answer.headers()["content-type"].to_str().unwrap().starts_with(kind), "{route}");
            let policy = answer.headers()["content-security-policy"].to_str().unwrap();
            assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            let text = answer.text().await.unwrap();
            for outside in [
                "http://",
                "https://",
                "//cdn",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(outside), "{route} has {outside}");
            }
            for named in text.split(['"', '\'']).filter(|t| t.ends_with(".js") || t.ends_with(".css")) {
                assert_eq!(
                    cluster.request(Method::GET, &format!("/{named}")).send().await.unwrap().status(),
                    200,
                    "{named}"
                );
            }
        }
    });
}
