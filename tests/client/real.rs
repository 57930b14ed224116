//! Real sockets and real time, a small run.

use std::sync::Arc;
use std::time::Duration;

use tollgate::client::Guard;
use tollgate::{Concurrency, LimiterExt, Quota, TokenBucket};

use crate::upstream::{Law, Style, router, upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_is_never_asked_for_more_than_it_serves() {
    const CALLS: usize = 60;
    let upstream = upstream(Law::Bucket { per_second: 100.0, burst: 20.0 }, Style::Draft10);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = router(&upstream);
    tokio::spawn(async move { axum::serve(listener, served).await });

    // A little less than is served: on a real network calls do not arrive at the pace at which they were sent.
    let rate = TokenBucket::new(Quota::per_second(80).burst(10)).unwrap();
    let guard = Guard::new(rate.and(Concurrency::new(8)));
    let client = reqwest::Client::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CALLS {
        let (guard, client, url) = (guard.clone(), client.clone(), url.clone());
        tasks.spawn(async move {
            let mut permit = guard.acquire(1).await.unwrap();
            let response = client.get(url).send().await.unwrap();
            let (status, headers) = (response.status(), response.headers());
            permit.observe(&tollgate::client::Signals::read(guard.profile(), status, headers, guard.unix()));
            assert_eq!(status, 200);
        });
    }
    tasks.join_all().await;
    let server = upstream.lock().unwrap();
    assert_eq!((server.served.len(), server.throttled), (CALLS, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_that_throttles_is_obeyed_by_everybody() {
    // Three at once and then one a second: without a guard all of the rest would be throttled.
    let upstream = upstream(Law::Bucket { per_second: 2.0, burst: 3.0 }, Style::Bare);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let served = router(&upstream);
    tokio::spawn(async move { axum::serve(listener, served).await });

    let guard = Guard::learning();
    let client = reqwest::Client::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (guard, client, url) = (guard.clone(), client.clone(), url.clone());
        tasks.spawn(async move {
            loop {
                let mut permit = guard.acquire(1).await.unwrap();
                let response = client.get(&url).send().await.unwrap();
                let (status, headers) = (response.status(), response.headers());
                permit.observe(&tollgate::client::Signals::read(
                    guard.profile(),
                    status,
                    headers,
                    guard.unix(),
                ));
                if status == 200 {
                    return;
                }
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await.expect("it ends");
    let server = Arc::clone(&upstream);
    let server = server.lock().unwrap();
    assert_eq!(server.served.len(), 8);
    assert!(server.throttled <= 8, "{} throttles", server.throttled);
}
